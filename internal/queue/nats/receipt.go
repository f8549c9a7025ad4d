package nats

import (
	"fmt"
	"strconv"
	"strings"

	"muster.dev/muster/internal/fleet"
)

// receipt is one delivery: the subject that acknowledges it, and which process
// took it. The subject works from any connection of the account.
type receipt struct {
	owner     string // of the Source that received it
	reply     string // $JS.ACK.…
	stream    string
	consumer  string
	delivered uint64 // how often, this time included
	seq       uint64 // in the stream
	delivery  uint64 // of the consumer, counting every delivery
	at        int64  // stored, in Unix nanoseconds, by the server's clock
}

func (r receipt) String() string { return r.owner + " " + r.reply }

// parseReceipt reads what receipt.String wrote, perhaps in an earlier process.
func parseReceipt(s string) (receipt, error) {
	owner, reply, ok := strings.Cut(s, " ")
	if !ok || owner == "" || len(s) > 4096 {
		return receipt{}, fmt.Errorf("a receipt that is none of NATS: %w", fleet.ErrInvalid)
	}
	r, err := parseReply(reply)
	r.owner = owner
	return r, err
}

// parseReply reads the subject that acknowledges a delivery. It is
// $JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>
// or, where the server knows domains, the same after <domain>.<account hash> and
// with tokens to come at its end: see NATS ADR-15.
func parseReply(reply string) (receipt, error) {
	bad := func(what string) (receipt, error) {
		return receipt{}, fmt.Errorf("acknowledgement subject with %s: %w", what, fleet.ErrInvalid)
	}
	if !strings.HasPrefix(reply, "$JS.ACK.") || !Subject(reply, false) {
		return bad("another form than $JS.ACK.…")
	}
	t := strings.Split(reply, ".")[2:]
	switch {
	case len(t) >= 9:
		t = t[2:]
	case len(t) != 7:
		return bad("an unknown number of tokens")
	}
	r := receipt{reply: reply, stream: t[0], consumer: t[1]}
	for i, to := range []*uint64{&r.delivered, &r.seq, &r.delivery} {
		n, err := strconv.ParseUint(t[2+i], 10, 63)
		if err != nil || n == 0 {
			return bad("a number that is none")
		}
		*to = n
	}
	at, err := strconv.ParseInt(t[5], 10, 64)
	if err != nil {
		return bad("a time that is none")
	}
	r.at = at
	return r, nil
}
