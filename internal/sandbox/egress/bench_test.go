package egress

import (
	"io"
	"testing"

	"muster.dev/muster/internal/fleet"
)

// BenchmarkTunnel sends bytes to an echo and back through one tunnel.
func BenchmarkTunnel(b *testing.B) {
	port := echo(b)
	_, sock := onSocket(b, fleet.Network{AllowPrivate: []string{"e.test"}}, Options{Resolve: local("e.test")})
	c, br := tunnel(b, sock, "e.test:"+port)
	buf := make([]byte, 64<<10)
	b.SetBytes(int64(len(buf)))
	for b.Loop() {
		if _, err := c.Write(buf); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(br, buf); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkConnect is what the first byte of a connection costs.
func BenchmarkConnect(b *testing.B) {
	port := echo(b)
	_, sock := onSocket(b, fleet.Network{AllowPrivate: []string{"e.test"}}, Options{Resolve: local("e.test")})
	for b.Loop() {
		c, _ := tunnel(b, sock, "e.test:"+port)
		_ = c.Close()
	}
}
