package redis

import (
	_ "embed" // the scripts

	"github.com/redis/go-redis/v9"
)

var (
	//go:embed common.lua
	commonLua string
	//go:embed list.lua
	listLua string
	//go:embed stream.lua
	streamLua string
)

// scripts are what is run on the server, each atomically. ARGV[1] is the
// consumer group, empty for a list.
type scripts struct {
	receive, look, stats, extend, ack, nack, bury, adopt *redis.Script
}

// The call that a script ends with; arguments that are the same in both modes
// come first.
const (
	callReceive = `return receive(ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8])`
	callExtend  = `return extend(ARGV[2], ARGV[3], tonumber(ARGV[4]))`
	callAck     = `return ack(ARGV[2], ARGV[3], ARGV[4] == '1')`
	callNack    = `return nack(ARGV[2], ARGV[3], tonumber(ARGV[4]))`
	callBury    = `return bury(ARGV[2], ARGV[3], ARGV[4], ARGV[5] == '1', ARGV[6], ARGV[7])`
	callAdopt   = `return adopt(tonumber(ARGV[2]), ARGV[3])`
)

func newScripts(mode string) scripts {
	of := func(call string) *redis.Script { return redis.NewScript(commonLua + mode + call + "\n") }
	return scripts{
		receive: of(callReceive), look: of("return look()"), stats: of("return stats()"),
		extend: of(callExtend), ack: of(callAck), nack: of(callNack), bury: of(callBury), adopt: of(callAdopt),
	}
}
