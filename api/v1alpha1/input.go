package v1alpha1

import (
	"bytes"
	"encoding/base64"
	"unicode/utf8"

	"muster.dev/muster/internal/fleet"
)

func (in *TaskInput) validate(ps *problems, field string, env map[string]string) {
	ps.oneOf(sub(field, "to"), in.To, string(fleet.InputFile), string(fleet.InputStdin), string(fleet.InputEnv))
	if in.Text != "" && in.Base64 != "" {
		ps.addf(field, "one of text and base64", "has both")
	}
	data, err := base64.StdEncoding.DecodeString(in.Base64)
	if err != nil {
		ps.addf(sub(field, "base64"), "standard base64 with padding", "cannot be decoded: %v", err)
	}
	if in.To != string(fleet.InputEnv) {
		if in.Name != "" {
			ps.addf(sub(field, "name"), "to: env, or no name", "names a variable that to: %s does not set", clip(in.To))
		}
		return
	}
	if in.Text != "" {
		data = []byte(in.Text)
	}
	switch {
	case in.Name == "":
		ps.addf(sub(field, "name"), "the name of the variable", "is missing")
	case bytes.IndexByte(data, 0) >= 0:
		ps.addf(field, "to: file or stdin", "has a NUL byte, which no variable can hold")
	default:
		ps.env(field, map[string]string{in.Name: string(data)})
	}
	if _, both := env[in.Name]; both {
		ps.addf(sub(field, "name"), "another name", "%q is also in env", clip(in.Name))
	}
}

// parse returns what validation has passed; nil for nil.
func (in *TaskInput) parse() *fleet.Input {
	if in == nil {
		return nil
	}
	out := &fleet.Input{Data: []byte(in.Text), To: fleet.InputTo(in.To), Name: in.Name}
	or(&out.To, fleet.InputFile)
	if in.Base64 != "" {
		out.Data, _ = base64.StdEncoding.DecodeString(in.Base64)
	}
	return out
}

// newTaskInput writes an input as a user would.
func newTaskInput(in *fleet.Input) *TaskInput {
	if in == nil {
		return nil
	}
	out := &TaskInput{To: string(in.To), Name: in.Name}
	if utf8.Valid(in.Data) {
		out.Text = string(in.Data)
	} else {
		out.Base64 = base64.StdEncoding.EncodeToString(in.Data)
	}
	return out
}
