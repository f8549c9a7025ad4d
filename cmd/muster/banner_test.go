package main

import (
	"strings"
	"testing"
)

func TestBanner(t *testing.T) {
	b := banner{version: "v1", fleet: "f", from: "here", address: "http://127.0.0.1:7433", dir: "/var/lib/muster", usual: "/var/lib/muster", code: "CODE"}
	text := func(b banner) string {
		var out strings.Builder
		b.print(&out)
		return out.String()
	}
	if got := text(b); !strings.Contains(got, "http://127.0.0.1:7433/#signin=CODE\n") {
		t.Errorf("no link to the dashboard:\n%s", got)
	}
	if got := text(b); strings.Contains(got, "note") || !strings.Contains(got, "try      muster submit --follow -- ") {
		t.Errorf("on the usual directory, as root:\n%s", got)
	}
	b.dir, b.uid, b.address = "/srv/my fleet", 1000, "http://[::]:7433"
	got := text(b)
	for _, want := range []string{"muster submit --data '/srv/my fleet' --follow", "note     not root", "note     reachable from other machines"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in\n%s", want, got)
		}
	}
}
