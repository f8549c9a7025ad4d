package oci

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"muster.dev/muster/internal/cgroup"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/sandbox/egress"
	"muster.dev/muster/internal/sandbox/link"
)

const (
	pidName = "pid"
	logName = "runtime.log"
)

// serve makes the directory the sandbox sees at /run/muster and listens in it.
func (s *Sandboxes) serve(b *box) error {
	run := filepath.Join(b.dir, "run")
	if err := os.Mkdir(run, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if err := os.Link(s.o.Runner, filepath.Join(run, runnerName)); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("place the runner: %w", err)
	}
	hosts := fmt.Sprintf("127.0.0.1 localhost\n::1 localhost\n127.0.0.1 %s\n", hostname(b.id))
	if err := os.WriteFile(filepath.Join(run, "hosts"), []byte(hosts), 0o644); err != nil {
		return err
	}
	l, err := s.listen(b, run, controlName)
	if err != nil {
		return err
	}
	spec := b.rec.Spec
	b.session = link.Serve(l, link.Options{
		Token: b.rec.Token, Prepare: spec.Prepare, Env: b.rec.Env, Startup: spec.Startup,
		Logger: s.o.Logger.With("sandbox", b.id),
	})
	if spec.Network.Mode != fleet.NetworkProxy {
		return nil
	}
	l, err = s.listen(b, run, proxyName)
	if err != nil {
		return err
	}
	if b.proxy, err = egress.Serve(l, spec.Network, s.proxyOptions(b.session)); err != nil {
		_ = l.Close()
		return fmt.Errorf("serve the proxy: %w", err)
	}
	return nil
}

// proxyOptions has refused names told in the task's log: git, curl and most
// agents keep the proxy's own words to themselves.
func (s *Sandboxes) proxyOptions(session *link.Session) egress.Options {
	o := s.o.Proxy
	told := o.OnDeny
	o.OnDeny = func(name, why string) {
		if told != nil {
			told(name, why)
		}
		_ = session.Note("proxy: " + name + " " + why) // best effort: the client has its answer
	}
	return o
}

// listen makes a socket that only the sandbox's root may connect to. It is
// bound under another name first, so that nobody connects before the mode is
// set, and by a short path, as socket paths end at 108 bytes.
func (s *Sandboxes) listen(b *box, run, name string) (net.Listener, error) {
	d, err := os.Open(run)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	defer d.Close()
	tmp := "." + name
	_ = os.Remove(filepath.Join(run, tmp))
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), tmp)})
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	l.SetUnlinkOnClose(false) // the name belongs to whoever listens last
	path := filepath.Join(run, tmp)
	err = os.Chmod(path, 0o600)
	if err == nil && b.rec.Base > 0 {
		err = os.Lchown(path, b.rec.Base, b.rec.Base)
	}
	if err == nil {
		err = os.Rename(path, filepath.Join(run, name))
	}
	if err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("listen: %w", err)
	}
	return l, nil
}

// start runs the container.
func (s *Sandboxes) start(ctx context.Context, b *box, p *plan, img Image, c *cli) error {
	var err error
	if b.words, err = newWords(); err != nil {
		return err
	}
	at := &bundle{
		id: string(b.id), dir: b.dir, log: filepath.Join(b.dir, logName),
		pidFile: filepath.Join(b.dir, pidName), open: p.spec.Network.Mode == fleet.NetworkOpen,
	}
	run := func() error {
		conf, err := p.config()
		if err != nil {
			return err
		}
		if err := writeConfig(b.dir, conf); err != nil {
			return err
		}
		return c.run(ctx, at, quiet{b.words})
	}
	if s.rootless != nil {
		if len(img.Lower) > 0 {
			return &fleet.ReasonError{Reason: fleet.ReasonImage,
				Err: fmt.Errorf("image %s: without root only the image %q can be used", p.spec.Image, fleet.ImageHost)}
		}
		err = run()
	} else {
		err = s.prepareVolume(b)
		if err == nil {
			err = privately(func() error {
				if err := s.stage(b, p, img, c); err != nil {
					return err
				}
				return run()
			})
		}
	}
	if err != nil {
		return classify(ctx, err)
	}
	return nil
}

// classify keeps errors that already say what they are.
func classify(ctx context.Context, err error) error {
	var r *fleet.ReasonError
	switch {
	case errors.As(err, &r), errors.Is(err, fleet.ErrInvalid), errors.Is(err, fleet.ErrFull):
		return err
	case ctx.Err() != nil:
		return fmt.Errorf("%w: %w", ctx.Err(), err)
	case errors.Is(err, unix.ENOSPC):
		return fmt.Errorf("%w: %w", fleet.ErrFull, err)
	}
	return fmt.Errorf("%w: %w", fleet.ErrUnavailable, err)
}

func (s *Sandboxes) prepareVolume(b *box) error {
	if b.rec.Volume != volumeLoop {
		return nil
	}
	return s.volumes.create(filepath.Join(b.dir, "volume"), b.rec.Spec.Resources.DiskBytes)
}

// attend learns the container's init and watches it.
func (s *Sandboxes) attend(b *box) error {
	text, err := os.ReadFile(filepath.Join(b.dir, pidName))
	if err != nil {
		return fmt.Errorf("the runtime left no pid: %w", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return fmt.Errorf("the runtime's pid file holds %q", text)
	}
	if b.rec.Init, err = identify(pid); err == nil {
		b.watch, err = watchProcess(b.rec.Init)
	}
	if err != nil {
		if text := b.lastWords(); text != "" {
			return fmt.Errorf("the runner ended at once; it wrote: %s", text)
		}
		return fmt.Errorf("the runner ended at once: %w", err)
	}
	if err := b.rec.write(b.dir); err != nil {
		return err
	}
	if b.volume == nil { // the runtime made it
		if b.volume, err = s.findVolume(b); err != nil {
			s.o.Logger.Debug("the disk use cannot be read", "sandbox", b.id, "error", err)
		}
	}
	s.wg.Go(func() { s.guard(b) })
	return nil
}

// losses says which protections this machine cannot give.
func (s *Sandboxes) losses(r record) []string {
	var out []string
	if r.Cgroup == "" {
		out = append(out, "no limits on memory, cpu and processes: "+s.noCgroup)
	} else if s.layout.Mode == cgroup.V1 || s.layout.Mode == cgroup.Hybrid {
		if !s.boundsSwap() {
			out = append(out, "swap is not bounded: the kernel does not account for it (swapaccount=1)")
		}
	}
	if r.Volume == volumeTmpfs {
		why := "not run as root"
		if s.volumes != nil {
			why = s.volumes.why
		}
		out = append(out, "the disk limit is a memory file system and counts against memory: "+why)
	}
	if !s.rights.resources {
		out = append(out, "the kernel may kill the runner for memory before the agent: CAP_SYS_RESOURCE is missing")
	}
	if want := r.Spec.Resources.Files; s.rights.files(want) < uint64(want) {
		out = append(out, fmt.Sprintf("open files are limited to %d rather than %d: CAP_SYS_RESOURCE is missing", s.rights.files(want), want))
	}
	if r.Rootless && r.Runtime == fleet.RuntimeGVisor {
		out = append(out, "a full disk is told as the program's own failure: gvisor keeps its memory file systems to itself")
	}
	if r.Base == sharedBase {
		out = append(out, "all sandboxes with images share one range of ids: the kernel cannot map owners below overlayfs (Linux 5.19)")
	}
	if !s.rootless.apart(r.Runtime) {
		out = append(out, "the agent and its runner have the same user, root of a user namespace that is nobody outside: no subordinate ids (/etc/subuid, newuidmap)")
	}
	if r.Rootless {
		out = append(out, "all sandboxes share the ids of one user: not run as root")
	}
	if r.Runtime != fleet.RuntimeGVisor {
		out = append(out, "the kernel is shared with the host: "+string(r.Runtime)+" is no boundary against hostile code, gvisor is")
	}
	if r.Spec.Network.Mode == fleet.NetworkOpen {
		out = append(out, "the network is the node's own: mode open was asked for")
	}
	return out
}
