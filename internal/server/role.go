package server

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
)

// Role is what a caller may do. Each includes those before it.
type Role int

// The roles. The token of the data directory is the admin's: the tokens of the
// other two follow from it, so nothing is stored for them, every process of the
// control plane knows them, and another token ends them all.
const (
	// NoRole has no token, or a wrong one.
	NoRole Role = iota
	// Reader sees everything, may ask what would be, and changes nothing.
	Reader
	// Operator submits and ends tasks, runs commands in sandboxes, and changes
	// schedules and the fleet.
	Operator
	// Admin does what an operator does, and can make the tokens of the others.
	Admin
)

// roleNames are the roles as people write them.
var roleNames = []string{"none", "reader", "operator", "admin"}

func (r Role) String() string { return roleNames[r] }

// ParseRole reads reader, operator or admin; else the error is a
// *fleet.FieldError.
func ParseRole(text string) (Role, error) {
	if i := slices.Index(roleNames, text); i > 0 {
		return Role(i), nil
	}
	return NoRole, &fleet.FieldError{Field: "role", Wrong: fmt.Sprintf("%q is unknown", shorten(text)), Right: "reader, operator or admin"}
}

// TokenFor is the token of a role, made from the admin's.
func TokenFor(admin string, role Role) string {
	if role != Reader && role != Operator {
		return admin
	}
	key := sha256.Sum256([]byte(admin))
	h := hmac.New(sha256.New, key[:])
	h.Write([]byte("muster token of role " + role.String()))
	return role.String() + "-" + hex.EncodeToString(h.Sum(nil))
}

// roleOf is whose token it is.
func (s *Server) roleOf(token string) Role {
	got, found := digestOf(strings.TrimSpace(token)), NoRole
	for role, want := range s.tokens {
		if subtle.ConstantTimeCompare(got[:], want[:]) == 1 {
			found = role
		}
	}
	return found
}

// tokensOf are the digests of every token that is good.
func tokensOf(admin string) map[Role][sha256.Size]byte {
	out := map[Role][sha256.Size]byte{}
	for _, r := range []Role{Reader, Operator, Admin} {
		out[r] = digestOf(TokenFor(admin, r))
	}
	return out
}

// needs is the least role that a request wants: reading is a reader's but for
// exec, which is a GET by the rules of WebSocket. A what-if is a POST for the
// size of its question; it changes nothing, and one at a time is answered.
func needs(r *http.Request) Role {
	exec := v1alpha1.RouteTaskExec[strings.LastIndex(v1alpha1.RouteTaskExec, "/"):]
	if (r.Method == http.MethodGet || r.Method == http.MethodHead) && !strings.HasSuffix(r.URL.Path, exec) {
		return Reader
	}
	if r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, v1alpha1.RouteWhatIf) {
		return Reader
	}
	return Operator
}
