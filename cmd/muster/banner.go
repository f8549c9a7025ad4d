package main

import (
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/client"
)

// banner is what `muster up` says of itself once it is up.
type banner struct {
	version, fleet, from, address, dir string
	code                               string // signs one browser in
	mode                               string
	usual                              string // where clients look for a data directory unless told
	uid                                int
}

func printBanner(w io.Writer, d *daemon, from string) {
	bare := func(name string) string { // another terminal need not have $MUSTER_HOME
		if name == "MUSTER_HOME" {
			return ""
		}
		return os.Getenv(name)
	}
	banner{
		version: version(), fleet: d.cfg.fleet.Metadata.Name, from: from, address: d.address(), dir: d.cfg.dir,
		code: d.server.SignInCode(),
		mode: d.cfg.fleet.Spec.Mode, usual: client.DataDir(bare, os.Geteuid()), uid: os.Geteuid(),
	}.print(w)
}

func (b banner) print(w io.Writer) {
	where := ""
	if b.dir != b.usual {
		where = " --data " + quoted([]string{b.dir})
	}
	try := "submit" + where + " --follow -- sh -c 'echo hello from $(id -un)'"
	switch b.mode {
	case v1alpha1.ModeScale:
		try = "fleet" + where + "   (nothing is started here: others run the workers)"
	case v1alpha1.ModeShadow:
		try = "shadow" + where + "   (nothing is started: what would have been is compared)"
	}
	fmt.Fprintf(w, `muster %s is up
  fleet    %s (%s)
  address  %s
  token    in %s
  browser  %s/#signin=%s
           (signs in once, within 15 minutes; afterwards with what `+"`muster token`"+` prints)
  try      muster %s
  stop     Ctrl-C
`, b.version, b.fleet, b.from, b.address, filepath.Join(b.dir, "token"), b.address, b.code, try)
	for _, n := range b.notes() {
		fmt.Fprintf(w, "  note     %s\n", n)
	}
}

// notes are what whoever starts a fleet should know and may not expect.
func (b banner) notes() []string {
	var out []string
	if b.uid != 0 {
		out = append(out, "not root: limits of memory, CPU, processes and disk may be missing, and the network mode open is; `muster doctor` says which")
	}
	if u, err := url.Parse(b.address); err == nil {
		if ip := net.ParseIP(strings.Trim(u.Hostname(), "[]")); ip != nil && !ip.IsLoopback() {
			out = append(out, "reachable from other machines, without encryption: whoever overhears the token can run tasks here")
		}
	}
	return out
}
