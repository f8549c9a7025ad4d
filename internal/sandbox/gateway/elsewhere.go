package gateway

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strconv"
	"strings"

	"muster.dev/muster/internal/fleet"
)

// headerName carries the name of a pod: to a runner with its session, and from
// it ever after. It is only a hint of whom to ask, so nobody signs it: who takes
// a runner knows it by the UID that its session proves.
const headerName = "Muster-Name"

// sandboxOf is the sandbox that a pod of this name is; false where the name is
// another maker's.
func sandboxOf(name string) (fleet.SandboxID, bool) {
	return fleet.SandboxID(name), fleet.ValidID("s", name)
}

// elsewhere is the address of the process that takes this runner, empty where
// Peers knew more than that it does not know it, or nobody else does.
func (g *Gateway) elsewhere(ctx context.Context, r *http.Request, id Identity, unknown error) string {
	if g.o.Elsewhere == nil || !errors.Is(unknown, fleet.ErrNotFound) && !errors.Is(unknown, fleet.ErrUnavailable) {
		return ""
	}
	name := id.Pod
	if name == "" {
		name = r.Header.Get(headerName)
	}
	sandbox, ok := sandboxOf(name)
	if !ok {
		return ""
	}
	to, ok := g.o.Elsewhere(ctx, sandbox)
	if !ok {
		return ""
	}
	if !isAddress(to) {
		g.log.Warn("a runner cannot be sent to its owner: want host:port", "sandbox", sandbox, "address", to)
		return ""
	}
	return to
}

// isAddress reports whether s is host:port as it can stand in a URL.
func isAddress(s string) bool {
	host, port, err := net.SplitHostPort(s)
	n, perr := strconv.ParseUint(port, 10, 16)
	return err == nil && perr == nil && n > 0 && host != "" && net.JoinHostPort(host, port) == s &&
		!strings.ContainsFunc(host, func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune(".-:", r)
		})
}

// redirect sends a runner to the same path at another address.
func redirect(w http.ResponseWriter, r *http.Request, to string) {
	w.Header().Set("Location", "https://"+to+r.URL.Path)
	refuse(w, &answer{http.StatusTemporaryRedirect, "this sandbox is driven elsewhere"})
}
