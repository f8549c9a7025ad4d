package egress

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"muster.dev/muster/internal/fleet"
)

// rule is one entry of a list: a name or suffix, or an address range; port 0
// stands for the default ports 80 and 443 in the allow-list, and for any port
// in the list of private addresses.
type rule struct {
	name   string // lower case, without trailing dot; "" for a prefix rule
	suffix bool   // "*.example.com": any name below, not the name itself
	prefix netip.Prefix
	port   uint16
}

// Policy is a parsed fleet.Network.
type Policy struct {
	allow   []rule
	private []rule
}

// ParsePolicy reads the lists; an entry that cannot be understood is a
// fleet.FieldError (fields allow[i], allowPrivate[i]).
func ParsePolicy(n fleet.Network) (Policy, error) {
	var p Policy
	for i, s := range n.Allow {
		r, err := parseRule(s)
		if err != nil {
			return Policy{}, &fleet.FieldError{Field: fmt.Sprintf("network.allow[%d]", i), Wrong: err.Error(), Right: `a host name, "*.example.com" or "host:port"`}
		}
		p.allow = append(p.allow, r)
	}
	for i, s := range n.AllowPrivate {
		r, err := parseRule(s)
		if err != nil {
			return Policy{}, &fleet.FieldError{Field: fmt.Sprintf("network.allowPrivate[%d]", i), Wrong: err.Error(), Right: `a host name, an address or a range such as 10.1.0.0/16, each with an optional ":port"`}
		}
		p.private = append(p.private, r)
	}
	return p, nil
}

func parseRule(s string) (rule, error) {
	s = strings.ToLower(strings.TrimSpace(s))
	var r rule
	host := s
	if pre, err := netip.ParsePrefix(s); err == nil {
		return rule{prefix: pre.Masked()}, nil
	}
	if a, err := netip.ParseAddr(s); err == nil {
		a = a.Unmap()
		return rule{prefix: netip.PrefixFrom(a, a.BitLen())}, nil
	}
	if i := strings.LastIndexByte(s, ':'); i >= 0 {
		port, err := strconv.ParseUint(s[i+1:], 10, 16)
		if err != nil || port == 0 {
			return rule{}, fmt.Errorf("%q has no valid port", s)
		}
		r.port, host = uint16(port), s[:i]
	}
	if h, ok := strings.CutPrefix(host, "["); ok {
		host = strings.TrimSuffix(h, "]")
	}
	if pre, err := netip.ParsePrefix(host); err == nil {
		r.prefix = pre.Masked()
		return r, nil
	}
	if a, err := netip.ParseAddr(host); err == nil {
		a = a.Unmap()
		r.prefix = netip.PrefixFrom(a, a.BitLen())
		return r, nil
	}
	if rest, ok := strings.CutPrefix(host, "*."); ok {
		r.suffix, host = true, rest
	}
	host = strings.TrimSuffix(host, ".")
	if !validName(host) {
		return rule{}, fmt.Errorf("%q is not a host name", s)
	}
	r.name = host
	return r, nil
}

func validName(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	for _, label := range strings.Split(s, ".") {
		if label == "" || len(label) > 63 {
			return false
		}
		for _, c := range label {
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return false
			}
		}
	}
	return true
}

func (r rule) matchesName(host string) bool {
	if r.name == "" {
		a, err := netip.ParseAddr(host)
		return err == nil && r.prefix.Contains(a.Unmap())
	}
	if r.suffix {
		return strings.HasSuffix(host, "."+r.name)
	}
	return host == r.name
}

// Allows reports whether host (a name or an address, any case) may be asked
// for at port.
func (p Policy) Allows(host string, port uint16) bool {
	host = normalName(host)
	for _, r := range p.allow {
		if !r.matchesName(host) {
			continue
		}
		if r.port == port || r.port == 0 && (port == 80 || port == 443) {
			return true
		}
	}
	// What is named as a private exception is meant to be reached.
	return p.privateByName(host, port)
}

func (p Policy) privateByName(host string, port uint16) bool {
	for _, r := range p.private {
		if r.matchesName(host) && (r.port == 0 || r.port == port) {
			return true
		}
	}
	return false
}

// AllowsAddr reports whether the resolved address of host may be dialled.
func (p Policy) AllowsAddr(host string, a netip.Addr, port uint16) bool {
	a = a.Unmap().WithZone("")
	if !reserved(a) {
		return true
	}
	if p.privateByName(normalName(host), port) {
		return true
	}
	for _, r := range p.private {
		if r.name == "" && r.prefix.Contains(a) && (r.port == 0 || r.port == port) {
			return true
		}
	}
	return false
}

func normalName(h string) string { return strings.TrimSuffix(strings.ToLower(h), ".") }

// reservedRanges are never reached unless excepted: the IANA special-purpose
// registries (RFC 6890) and the metadata addresses of cloud providers.
var reservedRanges = func() []netip.Prefix {
	var out []netip.Prefix
	for _, s := range []string{
		"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16",
		"172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16",
		"198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
		"168.63.129.16/32", // Azure's wire server
		"::/96", "::1/128", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32",
		"2002::/16", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8",
	} {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}()

func reserved(a netip.Addr) bool {
	a = a.Unmap()
	if !a.IsValid() || !a.IsGlobalUnicast() {
		return true
	}
	for _, p := range reservedRanges {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
