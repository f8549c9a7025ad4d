package v1alpha1

import (
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/api/validate/content"
)

// Bounds of single values.
const (
	// maxString is the longest one argument or environment entry that Linux
	// passes to a program: MAX_ARG_STRLEN, 128 KiB with its final NUL.
	maxString  = 128<<10 - 1
	maxPayload = 1 << 20 // prompt, env, command and setup together
	maxURL     = 2048
)

var (
	nameSyntax   = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	envSyntax    = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,254}$`)
	scpRepo      = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*@[A-Za-z0-9][A-Za-z0-9.-]*:[^:\s]+$`)
	imageSyntax  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:/@-]{0,511}$`)
	labelOfHost  = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?$`)
	refForbidden = regexp.MustCompile(`[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|^[-/]|[/.]$|//|\.lock$`)
)

func (ps *problems) name(field, s string) {
	switch {
	case s == "":
		ps.addf(field, "1-63 lower-case letters, digits and \"-\"", "is missing")
	case !nameSyntax.MatchString(s):
		ps.addf(field, "1-63 lower-case letters, digits and \"-\", beginning and ending with a letter or digit", "%q cannot be a name", clip(s))
	}
}

// duration reads a Go duration; "" is fallback, "0" is zero.
func duration(s string, fallback time.Duration) (time.Duration, error) {
	if s == "" {
		return fallback, nil
	}
	return time.ParseDuration(s)
}

// duration checks a duration; zeroMeans says what "0" is for, empty when it
// is refused.
func (ps *problems) duration(field, s string, lo, hi time.Duration, zeroMeans string) {
	if s == "" {
		return
	}
	right := fmt.Sprintf("a duration such as 90s or 2h, from %s to %s", text(lo), text(hi))
	if zeroMeans != "" {
		right += `, or "0" for ` + zeroMeans
	}
	d, err := time.ParseDuration(s)
	switch {
	case err != nil:
		ps.addf(field, right, "%q is not a duration", clip(s))
	case d == 0 && zeroMeans != "":
	case d < 0:
		ps.addf(field, right, "%s is negative", clip(s))
	case d < lo:
		ps.addf(field, right, "%s is too short", clip(s))
	case d > hi:
		ps.addf(field, right, "%s is too long", clip(s))
	}
}

func (ps *problems) labels(field string, labels map[string]string) {
	if len(labels) > 64 {
		ps.addf(field, "at most 64", "has %d labels", len(labels))
		return
	}
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		v := labels[k]
		if msgs := content.IsLabelKey(k); len(msgs) > 0 {
			ps.addf(in(field, k), "letters, digits, \"-\", \"_\" and \".\", at most 63, with an optional \"prefix/\"", "%q cannot be a label's name", clip(k))
		}
		if msgs := content.IsLabelValue(v); len(msgs) > 0 {
			ps.addf(in(field, k), "at most 63 letters, digits, \"-\", \"_\" and \".\", beginning and ending with a letter or digit", "%q cannot be a label's value", clip(v))
		}
	}
}

func (ps *problems) env(field string, env map[string]string) {
	for _, k := range slices.Sorted(maps.Keys(env)) {
		v := env[k]
		at := in(field, k)
		switch {
		case !envSyntax.MatchString(k):
			ps.addf(at, "letters, digits and \"_\", not beginning with a digit", "%q cannot be a variable's name", clip(k))
		case strings.HasPrefix(k, "MUSTER_"):
			ps.addf(at, "another name", "names beginning with MUSTER_ are set by muster")
		case strings.ContainsRune(v, 0):
			ps.addf(at, "text without NUL bytes", "has a NUL byte")
		case len(k)+1+len(v) > maxString:
			ps.addf(at, fmt.Sprintf("at most %d: Linux passes no more in one variable; use a file", maxString), "has %d bytes", len(k)+1+len(v))
		}
	}
}

// words checks command lines or arguments.
func (ps *problems) words(field string, words []string, mayBeEmpty bool) {
	for i, w := range words {
		switch {
		case w == "" && !mayBeEmpty:
			ps.addf(at(field, i), "a shell command", "is empty")
		case strings.ContainsRune(w, 0):
			ps.addf(at(field, i), "text without NUL bytes", "has a NUL byte")
		case len(w) > maxString:
			ps.addf(at(field, i), fmt.Sprintf("at most %d: Linux passes no more in one argument; use a file or the prompt", maxString), "has %d bytes", len(w))
		}
	}
}

// printable checks short free text.
func (ps *problems) printable(field, s string, most int) {
	bad := strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) || !utf8.ValidString(s)
	switch {
	case bad:
		ps.addf(field, "printable characters on one line", "has characters that cannot be shown")
	case utf8.RuneCountInString(s) > most:
		ps.addf(field, fmt.Sprintf("at most %d", most), "has %d characters", utf8.RuneCountInString(s))
	}
}

func (ps *problems) repoURL(field, s string) {
	const right = "an https, http, ssh, git or file URL, user@host:path, or an absolute path"
	switch {
	case s == "":
		ps.addf(field, right, "is missing")
	case len(s) > maxURL:
		ps.addf(field, fmt.Sprintf("at most %d", maxURL), "has %d characters", len(s))
	case strings.HasPrefix(s, "-") || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f }):
		ps.addf(field, right, "%q cannot be a repository's URL", clip(s))
	case strings.HasPrefix(s, "/"), scpRepo.MatchString(s):
	default:
		u, err := url.Parse(s)
		if err != nil || strings.Contains(s, "::") {
			ps.addf(field, right, "%q cannot be a repository's URL", clip(s))
			return
		}
		switch u.Scheme {
		case "https", "http", "ssh", "git":
			if u.Hostname() == "" {
				ps.addf(field, right, "%q names no host", clip(u.Redacted()))
			}
		case "file":
		default:
			ps.addf(field, right, "%q cannot be a repository's URL", clip(u.Redacted()))
			return
		}
		if _, secret := u.User.Password(); secret {
			// A task is stored and shown as submitted.
			ps.addf(field, "the URL without it; give the credential as a secret, or to the proxy", "holds a password")
		}
	}
}

func (ps *problems) ref(field, s string) {
	if s != "" && (len(s) > 255 || refForbidden.MatchString(s)) {
		ps.addf(field, "a branch, tag or commit", "%q cannot be one", clip(s))
	}
}

func (ps *problems) image(field, s string) {
	const right = "host, an absolute path, or a reference such as debian:12"
	switch {
	case s == "" || s == "host":
	case len(s) > 512:
		ps.addf(field, right, "has %d characters", len(s))
	case strings.HasPrefix(s, "/"):
		if path.Clean(s) != strings.TrimSuffix(s, "/") || s == "/" || strings.ContainsRune(s, 0) {
			ps.addf(field, right, "%q is not the path of an image", clip(s))
		}
	case strings.Contains(s, "://"):
		ps.addf(field, right, "%q is a URL", clip(s))
	case !imageSyntax.MatchString(s):
		ps.addf(field, right, "%q is not an image reference", clip(s))
	}
}

func (ps *problems) webhook(field, s string) {
	const right = "an http or https URL"
	if s == "" {
		return
	}
	u, err := url.Parse(s)
	switch {
	case len(s) > maxURL:
		ps.addf(field, fmt.Sprintf("at most %d", maxURL), "has %d characters", len(s))
	case err != nil:
		ps.addf(field, right, "%q is not a URL", clip(s))
	case u.Scheme != "http" && u.Scheme != "https":
		ps.addf(field, right, "%q has the scheme %q", clip(u.Redacted()), u.Scheme)
	case u.Hostname() == "":
		ps.addf(field, right, "%q names no host", clip(u.Redacted()))
	case u.User != nil:
		ps.addf(field, "the URL without it", "holds a user name or password")
	}
}

// allowRule says what is wrong with one entry of network.allow or
// allowPrivate; nil when it can be understood.
func allowRule(s string) error {
	if s == "" {
		return fmt.Errorf("is empty")
	}
	if strings.Contains(s, "://") {
		if u, err := url.Parse(s); err == nil && u.Host != "" {
			return fmt.Errorf("%q is a URL (did you mean %s?)", clip(s), u.Host)
		}
	}
	if s == "*" {
		return fmt.Errorf(`"*" would allow every name`)
	}
	if _, err := netip.ParsePrefix(s); err == nil {
		return nil
	}
	host := s
	if _, err := netip.ParseAddr(s); err != nil {
		if i := strings.LastIndexByte(s, ':'); i >= 0 {
			if n, err := strconv.ParseUint(s[i+1:], 10, 16); err != nil || n == 0 {
				return fmt.Errorf("%q has no valid port", clip(s))
			}
			host = s[:i]
		}
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if _, err := netip.ParseAddr(host); err == nil {
		return nil
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "*."), ".")
	if len(host) > 253 {
		return fmt.Errorf("%q is too long", clip(s))
	}
	for _, l := range strings.Split(host, ".") {
		if !labelOfHost.MatchString(l) {
			return fmt.Errorf("%q is not a host name", clip(s))
		}
	}
	return nil
}

// glob says what is wrong with a pattern of artifacts.
func (ps *problems) glob(field, s string) {
	const right = `a pattern below the workspace such as "out/*.xml" or "**/report.json"`
	switch {
	case s == "" || len(s) > 1024 || strings.ContainsAny(s, "\x00\n"):
		ps.addf(field, right, "%q is not a pattern", clip(s))
	case strings.HasPrefix(s, "/") || strings.HasPrefix(s, "~"):
		ps.addf(field, right, "%q is not relative to the workspace", clip(s))
	case s == ".." || strings.HasPrefix(s, "../") || strings.Contains(s, "/../") || strings.HasSuffix(s, "/.."):
		ps.addf(field, right, "%q leads out of the workspace", clip(s))
	default:
		if _, err := path.Match(s, ""); err != nil {
			ps.addf(field, right, "%q is not a pattern", clip(s))
		}
	}
}
