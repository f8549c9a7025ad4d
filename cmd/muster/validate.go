package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/client"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/payload"
	"muster.dev/muster/internal/terminal"
)

// verdict is what validate says of one file.
type verdict struct {
	File      string        `json:"file"`
	Documents int           `json:"documents"`
	Valid     bool          `json:"valid"`
	Problems  []fieldAnswer `json:"problems,omitempty"`
}

type fieldAnswer struct {
	Line  int    `json:"line,omitempty"`
	Field string `json:"field,omitempty"`
	Wrong string `json:"wrong"`
	Right string `json:"right,omitempty"`
}

func newValidateCommand(s *shell) *cobra.Command {
	var out *outputFlag
	c := &cobra.Command{
		Use:   "validate FILE…",
		Short: "Check Fleet, Task and Schedule documents without a server",
		Long: `Check documents (several to a file; - is standard input) as the server does,
without one. Every mistake is shown with the path of its field, what is wrong and
what would be right; the exit code is then 2. What only the server knows, as
whether a template of that name exists there, is checked on submission.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			verdicts, valid := []verdict{}, true
			for _, name := range args {
				v := validate(s, name)
				verdicts, valid = append(verdicts, v), valid && v.Valid
			}
			done, err := out.structured(s, map[string]any{"files": verdicts})
			if err != nil {
				return err
			}
			if !done {
				printVerdicts(s, verdicts)
			}
			if !valid {
				return exitStatus(exitUsage)
			}
			return nil
		},
	}
	out = addOutput(c, formatText, formatJSON, formatYAML)
	return c
}

func validate(s *shell, name string) verdict {
	v := verdict{File: fileName(name)}
	b, err := readFile(s, name)
	if err == nil {
		var docs []any
		docs, err = v1alpha1.ParseDocuments(b)
		v.Documents = len(docs)
		if err == nil && len(docs) == 0 {
			err = errors.New("holds no document")
		}
		for _, d := range docs {
			if f, ok := d.(*v1alpha1.Fleet); ok && err == nil {
				f.Default()
				if _, err = payload.New(f); err == nil {
					_, err = tariffOf(f)
				}
			}
		}
	}
	v.Valid = err == nil
	v.Problems = problems(err)
	return v
}

// problems takes joined errors apart.
func problems(err error) []fieldAnswer {
	if err == nil {
		return nil
	}
	var field *fleet.FieldError
	switch e := err.(type) { //nolint:errorlint // the tree is walked here
	case *client.Error: // a file that could not be read
		if e.Cause != nil {
			return []fieldAnswer{{Wrong: cause(e.Cause)}}
		}
		return []fieldAnswer{{Wrong: e.Text}}
	case interface{ Unwrap() []error }:
		var all []fieldAnswer
		for _, one := range e.Unwrap() {
			all = append(all, problems(one)...)
		}
		if len(all) > 0 {
			return all
		}
	case *fleet.FieldError:
		return []fieldAnswer{{Line: e.Line, Field: e.Field, Wrong: e.Wrong, Right: e.Right}}
	}
	if errors.As(err, &field) && errors.Unwrap(err) != nil {
		return problems(errors.Unwrap(err))
	}
	return []fieldAnswer{{Wrong: err.Error()}}
}

func printVerdicts(s *shell, verdicts []verdict) {
	for _, v := range verdicts {
		if v.Valid {
			s.printf("%s: ok (%s)\n", terminal.Escape(v.File), plural(v.Documents, "document"))
			continue
		}
		for _, p := range v.Problems {
			_, _ = fmt.Fprintln(s.errs, terminal.EscapeLines(p.at(v.File)))
		}
	}
}

// at is the problem as compilers print theirs, which editors understand:
// file:line: what is wrong.
func (p fieldAnswer) at(file string) string {
	text := file + ": "
	if p.Line > 0 {
		text = fmt.Sprintf("%s:%d: ", file, p.Line)
	}
	if p.Field != "" {
		text += p.Field + ": "
	}
	text += p.Wrong
	if p.Right != "" {
		text += "; want " + p.Right
	}
	return text
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
