// Command image makes the container image of Muster without a daemon: it
// builds muster and muster-runner, static, for each platform, and assembles an
// index of images from nothing but them, a user and CA certificates. There is
// no shell and no package in it.
//
// The certificates are the roots of Mozilla that the Go project publishes
// (golang.org/x/crypto/x509roots/fallback, pinned in go.mod); roots that are
// trusted under a constraint only are left out, since a PEM file cannot say it.
//
// The same commit gives the same image, bit for bit: times are that of the
// commit (or SOURCE_DATE_EPOCH), files are in a fixed order, and the Go
// toolchain is the one of go.mod.
//
// It is run by make image, at the top of the tree, and is a module of its own.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// options are the flags.
type options struct {
	root      string // top of the tree
	out       string // tarball to write
	tag       string // name of the image in the tarball
	push      string // reference to push to; empty: none
	platforms string
}

func main() {
	var o options
	flag.StringVar(&o.root, "root", filepath.Join("..", ".."), "top of the tree")
	flag.StringVar(&o.out, "out", "dist/muster-image.tar", "tarball to write, relative to root")
	flag.StringVar(&o.tag, "tag", "muster:dev", "name of the image in the tarball")
	flag.StringVar(&o.push, "push", "", "registry/repository:tag to push to, with the credentials of docker login")
	flag.StringVar(&o.platforms, "platforms", "linux/amd64,linux/arm64", "platforms, comma-separated")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	var push name.Reference
	if o.push != "" {
		var err error
		if push, err = name.ParseReference(o.push); err != nil { // before the build, which takes minutes
			return fmt.Errorf("-push: %w", err)
		}
	}
	tag, err := name.NewTag(o.tag)
	if err != nil {
		return fmt.Errorf("-tag: %w", err)
	}
	src, err := describe(ctx, o.root)
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "muster-image-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }()
	var builds []built
	for p := range strings.SplitSeq(o.platforms, ",") {
		b, err := build(ctx, o.root, work, p)
		if err != nil {
			return err
		}
		builds = append(builds, b)
	}
	index, err := assemble(src, builds)
	if err != nil {
		return err
	}
	out := filepath.Join(o.root, o.out)
	if err := save(out, tag, index, src.created); err != nil {
		return err
	}
	digest, err := index.Digest()
	if err != nil {
		return err
	}
	fmt.Printf("%s: %s, %s, %s\n", o.out, tag.Name(), src.version, digest)
	if push == nil {
		return nil
	}
	return publish(ctx, push, index, digest)
}

func publish(ctx context.Context, ref name.Reference, index v1.ImageIndex, digest v1.Hash) error {
	if err := remote.WriteIndex(ref, index, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain)); err != nil {
		return fmt.Errorf("push to %s: %w", ref, err)
	}
	fmt.Printf("pushed %s@%s\n", ref.Context(), digest)
	return nil
}

// source is what the image is made from.
type source struct {
	version, revision string
	created           time.Time
}

// describe asks git, and SOURCE_DATE_EPOCH for the time.
func describe(ctx context.Context, root string) (source, error) {
	var s source
	var err error
	if s.version, err = git(ctx, root, "describe", "--tags", "--always", "--dirty"); err != nil {
		return s, err
	}
	if s.revision, err = git(ctx, root, "rev-parse", "HEAD"); err != nil {
		return s, err
	}
	epoch := os.Getenv("SOURCE_DATE_EPOCH")
	if epoch == "" {
		if epoch, err = git(ctx, root, "log", "-1", "--format=%ct"); err != nil {
			return s, err
		}
	}
	seconds, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil {
		return s, fmt.Errorf("SOURCE_DATE_EPOCH: %q is no number of seconds since 1970", epoch)
	}
	s.created = time.Unix(seconds, 0).UTC()
	return s, nil
}

func git(ctx context.Context, root string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, "git", append([]string{"-C", root}, args...)...).Output()
	if err != nil {
		return "", fmt.Errorf("git %s: %w", args[0], err)
	}
	return strings.TrimSpace(string(out)), nil
}
