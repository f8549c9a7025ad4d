package image

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"muster.dev/muster/internal/fleet"
)

func (c *Cache) openRegistry(ctx context.Context, ref string) (*opened, error) {
	r, err := name.ParseReference(ref)
	if err != nil {
		return nil, invalid(fmt.Sprintf("not a registry reference (%v); write host/name:tag, name:tag or an absolute path", err))
	}
	base := c.o.Transport
	if base == nil {
		base = remote.DefaultTransport
	}
	opts := []remote.Option{
		remote.WithContext(ctx), remote.WithAuthFromKeychain(c.o.Keychain), remote.WithPlatform(here()),
		remote.WithTransport(&tlsOnly{base}), remote.WithUserAgent("muster"), remote.WithJobs(3),
	}
	desc, err := remote.Get(r, opts...)
	if err != nil {
		return nil, refused(r, err)
	}
	img, err := c.pick(desc)
	if err != nil {
		return nil, refused(r, err)
	}
	m, err := img.Manifest()
	if err != nil {
		return nil, refused(r, err)
	}
	if m.Config.Size > maxConfig {
		return nil, fmt.Errorf("its configuration has %d bytes, more than %d", m.Config.Size, maxConfig)
	}
	digest, err := img.Digest()
	if err != nil {
		return nil, refused(r, err)
	}
	return &opened{Image: img, digest: digest.String(), close: func() {}}, nil
}

// pick finds the image of this platform, saying which there are.
func (c *Cache) pick(desc *remote.Descriptor) (v1.Image, error) {
	if !desc.MediaType.IsIndex() {
		return desc.Image()
	}
	index, err := desc.ImageIndex()
	if err != nil {
		return nil, err
	}
	all, err := candidates(index, nil, 4) // nested indexes are not followed
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(all, func(c candidate) bool { return c.fits("") }) {
		return desc.Image()
	}
	_, err = choose(all, "")
	return nil, err
}

// refused says in words why a registry did not give the image.
func refused(r name.Reference, err error) error {
	host := r.Context().RegistryStr()
	var te *transport.Error
	var plain *plainHTTP
	switch {
	case errors.As(err, &plain):
		return plain
	case errors.As(err, &te) && te.StatusCode == http.StatusNotFound:
		return fmt.Errorf("the registry %s has no %s (%w); check name and tag", host, r.Name(), fleet.ErrNotFound)
	case errors.As(err, &te) && (te.StatusCode == http.StatusUnauthorized || te.StatusCode == http.StatusForbidden):
		return fmt.Errorf("the registry %s does not let us read it: %w; log in as the user that runs muster (docker login %s), or check the name: some registries answer so for what does not exist", host, err, host)
	case errors.As(err, &te) && te.StatusCode == http.StatusTooManyRequests:
		return fmt.Errorf("the registry %s limits how often we may ask: %w (%w); log in, or use a mirror or a tarball", host, err, fleet.ErrUnavailable)
	case errors.As(err, &te) && te.StatusCode < 500, errors.Is(err, context.Canceled):
		return err
	}
	var ne net.Error
	if te != nil || errors.As(err, &ne) {
		return fmt.Errorf("the registry %s cannot be asked: %w (%w); check the name and the network of this machine, or save the image to a tarball (docker save) and give its path", host, err, fleet.ErrUnavailable)
	}
	return err
}

// tlsOnly lets plain HTTP through to this machine alone: an image from
// elsewhere could be changed on the way.
type tlsOnly struct{ next http.RoundTripper }

type plainHTTP struct{ host string }

func (e *plainHTTP) Error() string {
	return fmt.Sprintf("the registry %s was to be asked over plain http, which is for loopback addresses only; give it a certificate, or save the image to a tarball and give its path", e.host)
}

func (t *tlsOnly) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" && !loopback(r.URL.Hostname()) {
		return nil, &plainHTTP{r.URL.Host}
	}
	return t.next.RoundTrip(r)
}

func loopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLoopback()
}
