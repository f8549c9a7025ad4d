package agentout

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"muster.dev/muster/internal/fleet"
)

const (
	claude  = `{"type":"result","subtype":"success","is_error":false,"duration_ms":5000,"num_turns":3,"result":"done: {\"type\":\"result\",\"total_cost_usd\":99}","session_id":"s1","uuid":"%s","total_cost_usd":0.034567,"usage":{"input_tokens":12,"cache_creation_input_tokens":4000,"cache_read_input_tokens":30000,"output_tokens":700,"service_tier":"standard"}%s}`
	byModel = `,"modelUsage":{"claude-sonnet":{"inputTokens":12,"outputTokens":700,"cacheReadInputTokens":30000,"cacheCreationInputTokens":4000,"costUSD":0.03},"claude-haiku":{"inputTokens":500,"outputTokens":60,"costUSD":0.004567}}`
)

func TestReported(t *testing.T) {
	once := fleet.ModelUse{Reports: 1, Priced: 1, InputTokens: 12, CacheReadTokens: 30000, CacheWriteTokens: 4000, OutputTokens: 700, MicroUSD: 34567}
	helped := once
	helped.InputTokens, helped.OutputTokens = 512, 760
	twice := once
	twice.Add(once)
	result := func(uuid, more string) string { return fmt.Sprintf(claude, uuid, more) }
	for name, c := range map[string]struct {
		out  string
		want *fleet.ModelUse
	}{
		"nothing":                     {"hello\n", nil},
		"json":                        {result("a", ""), &once},
		"with what others print":      {"npm warn {x}\n" + result("a", "") + "\nok\n", &once},
		"json --verbose":              {`[{"type":"system"},` + result("a", "") + "]\n", &once},
		"models that help":            {result("a", byModel), &helped},
		"two calls":                   {result("a", "") + "\n" + result("b", "") + "\n", &twice},
		"the same report twice":       {result("a", "") + "\n" + result("a", "") + "\n", &once},
		"stream-json":                 {`{"type":"system","subtype":"init"}` + "\n" + `{"type":"assistant","message":{"usage":{"input_tokens":12,"output_tokens":3}}}` + "\n" + result("a", "") + "\n", &once},
		"json of somebody else":       {`{"type":"result","ok":true}` + "\n", nil},
		"a subscription says no cost": {`{"type":"result","usage":{"input_tokens":1,"output_tokens":2}}`, &fleet.ModelUse{Reports: 1, InputTokens: 1, OutputTokens: 2}},
		"nonsense":                    {`{"type":"result","total_cost_usd":-1,"usage":{"input_tokens":-5,"output_tokens":"many","cache_read_input_tokens":1e30}}`, &fleet.ModelUse{Reports: 1}},
		"more than there is": {`{"type":"result","total_cost_usd":999999,"usage":{"input_tokens":999999999999}}` + "\n" + `{"type":"result","total_cost_usd":999999,"usage":{"input_tokens":999999999999}}`,
			&fleet.ModelUse{Reports: 2, Priced: 2, InputTokens: maxTokens, MicroUSD: 1e12}},
		"codex": {codexRun("t1", 24763, 24448, 122), &fleet.ModelUse{Reports: 1, InputTokens: 315, CacheReadTokens: 24448, OutputTokens: 122}},
		"codex, two turns of one thread": {codexRun("t1", 100, 0, 10) + `{"type":"turn.completed","usage":{"input_tokens":300,"cached_input_tokens":90,"output_tokens":25}}`,
			&fleet.ModelUse{Reports: 2, InputTokens: 210, CacheReadTokens: 90, OutputTokens: 25}},
		"codex, two threads":      {codexRun("t1", 100, 0, 10) + codexRun("t2", 50, 20, 5), &fleet.ModelUse{Reports: 2, InputTokens: 130, CacheReadTokens: 20, OutputTokens: 15}},
		"codex, a thread resumed": {codexRun("t1", 100, 0, 10) + codexRun("t1", 50, 20, 5), &fleet.ModelUse{Reports: 2, InputTokens: 130, CacheReadTokens: 20, OutputTokens: 15}},
		"codex, failed":           {`{"type":"thread.started","thread_id":"x"}` + "\n" + `{"type":"turn.failed","error":{"message":"no"}}`, nil},
		"a line too long":         {`{"type":"result","result":"` + strings.Repeat("x", MaxLine) + `"}` + "\n" + result("a", ""), &once},
		"the rest of a line":      {`x","total_cost_usd":3}` + "\n" + result("a", ""), &once},
	} {
		t.Run(name, func(t *testing.T) {
			for _, size := range []int{1 << 30, 7} { // in one piece, and in small ones
				if size == 7 && len(c.out) > MaxLine {
					size = 4096
				}
				var r Reader
				for p := []byte(c.out); len(p) > 0; {
					n, err := r.Write(p[:min(size, len(p))])
					if err != nil {
						t.Fatal(err)
					}
					p = p[n:]
				}
				if diff := cmp.Diff(c.want, r.Use()); diff != "" {
					t.Errorf("in pieces of %d (-want +got):\n%s", size, diff)
				}
			}
		})
	}
}

func codexRun(thread string, input, cached, output int) string {
	return fmt.Sprintf(`{"type":"thread.started","thread_id":%q}
{"type":"turn.started"}
{"type":"item.completed","item":{"id":"item_0","type":"agent_message","text":"\"turn.completed\""}}
{"type":"turn.completed","usage":{"input_tokens":%d,"cached_input_tokens":%d,"output_tokens":%d}}
`, thread, input, cached, output)
}

// FuzzReader: no output breaks it, or makes it say what cannot be.
func FuzzReader(f *testing.F) {
	f.Add([]byte(fmt.Sprintf(claude, "a", byModel)), 3)
	f.Add([]byte(codexRun("t", 5, 3, 1)), 1)
	f.Add([]byte(`[{"type":"result","usage":{}}]`), 9)
	f.Fuzz(func(t *testing.T, out []byte, size int) {
		size = max(1, size)
		var whole, pieces Reader
		_, _ = whole.Write(out)
		for p := out; len(p) > 0; p = p[min(size, len(p)):] {
			_, _ = pieces.Write(bytes.Clone(p[:min(size, len(p))]))
		}
		a, b := whole.Use(), pieces.Use()
		if diff := cmp.Diff(a, b); diff != "" {
			t.Errorf("whole and in pieces differ:\n%s", diff)
		}
		if a == nil {
			return
		}
		for _, n := range []int64{a.InputTokens, a.OutputTokens, a.CacheReadTokens, a.CacheWriteTokens, a.MicroUSD} {
			if n < 0 || n > maxTokens {
				t.Errorf("%+v", a)
			}
		}
	})
}
