// Package agentout reads what coding agents say of themselves in their output:
// tokens, and what the models cost (layer L1, pure).
//
// Known are `claude -p --output-format json` (one object, or with --verbose a
// list of them) and stream-json (an object a line), whose last one has "type":
// "result" with total_cost_usd, usage and modelUsage
// (https://code.claude.com/docs/en/agent-sdk/cost-tracking), and `codex exec
// --json`, whose lines "thread.started" and "turn.completed" name the thread and
// what it has used so far (codex-rs/exec/src/exec_events.rs). Anything else is
// passed over. The agent may be hostile: lines and numbers are bounded, nothing
// in its output is trusted to be more than what it says of itself.
//
// It may import fleet.
package agentout
