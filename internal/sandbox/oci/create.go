package oci

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	"muster.dev/muster/internal/cgroup"
	"muster.dev/muster/internal/fleet"
)

// Create implements fleet.Sandboxes.
func (s *Sandboxes) Create(ctx context.Context, spec fleet.SandboxSpec) (fleet.Isolation, error) {
	iso, err := s.create(ctx, spec)
	if err != nil {
		return fleet.Isolation{}, fmt.Errorf("create sandbox %s: %w", spec.ID, err)
	}
	return iso, nil
}

func (s *Sandboxes) create(ctx context.Context, spec fleet.SandboxSpec) (fleet.Isolation, error) {
	if err := errors.Join(ctx.Err(), s.open(), check(spec)); err != nil {
		return fleet.Isolation{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	s.mu.Lock()
	if b := s.boxes[spec.ID]; b != nil {
		s.mu.Unlock()
		return b.await(ctx)
	}
	b := newBox(spec.ID, s.dir(spec.ID), cancel)
	s.boxes[spec.ID] = b
	s.mu.Unlock()

	b.err = s.bringUp(ctx, b, spec)
	if b.words != nil {
		_ = b.words.Close()
		b.words = nil
	}
	if b.err != nil {
		s.undo(b)
	}
	close(b.settled)
	return b.isolation, b.err
}

// await waits for the Create that is under way.
func (b *box) await(ctx context.Context) (fleet.Isolation, error) {
	select {
	case <-ctx.Done():
		return fleet.Isolation{}, ctx.Err()
	case <-b.settled:
	}
	if b.err == nil && !b.ready() {
		return fleet.Isolation{}, fmt.Errorf("the sandbox has ended: %w", fleet.ErrConflict)
	}
	return b.isolation, b.err
}

func check(spec fleet.SandboxSpec) error {
	if !fleet.ValidID("s", string(spec.ID)) {
		return fmt.Errorf("%q is no sandbox id: %w", spec.ID, fleet.ErrInvalid)
	}
	r := spec.Resources
	for name, v := range map[string]int64{"milliCPU": r.MilliCPU, "memoryBytes": r.MemoryBytes,
		"pids": r.Pids, "diskBytes": r.DiskBytes, "files": r.Files} {
		if v <= 0 {
			return &fleet.FieldError{Field: "resources." + name, Wrong: fmt.Sprint(v), Right: "a positive number"}
		}
	}
	return checkMounts(spec.Mounts)
}

// bringUp makes the sandbox and waits until its runner is ready. What it made
// before an error is recorded in b.
func (s *Sandboxes) bringUp(ctx context.Context, b *box, spec fleet.SandboxSpec) error {
	began := time.Now()
	c, lost, err := s.choose(ctx, spec.Runtime)
	if err != nil {
		return err
	}
	img, err := s.resolve(ctx, spec.Image)
	if err != nil {
		return err
	}
	lap := stopwatch(began)
	b.stages.Image = lap()
	leave, err := s.starts.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	b.stages.Turn = lap()
	if spec.Startup > 0 { // fetching the image and waiting for a turn are no start
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, spec.Startup, errStartup)
		defer cancel()
	}
	if err = s.launch(ctx, b, spec, img, c); err != nil {
		return startError(ctx, spec, err)
	}
	// The runner's own start is work, too; the template's commands wait for
	// networks and disks, as anything that takes longer does.
	if len(spec.Prepare) > 0 {
		b.stages.Start = lap()
		leave()
	}
	defer time.AfterFunc(longStart, leave).Stop()
	if err := b.session.Ready(ctx); err != nil {
		return startError(ctx, spec, s.explain(b, err))
	}
	b.isolation, err = s.observe(ctx, b)
	if err != nil {
		return startError(ctx, spec, err)
	}
	b.isolation.Lost = append(b.isolation.Lost, lost...)
	if rest := lap(); len(spec.Prepare) > 0 {
		b.stages.Prepare = rest
	} else {
		b.stages.Start = rest
	}
	s.o.Logger.Debug("sandbox ready", "sandbox", b.id, "runtime", c.kind, "took", time.Since(began))
	return nil
}

// longStart is how long a runner may keep others from starting.
const longStart = 200 * time.Millisecond

var errStartup = errors.New("the startup time was used up")

// startError gives a timeout its reason and leaves other errors alone.
func startError(ctx context.Context, spec fleet.SandboxSpec, err error) error {
	var r *fleet.ReasonError
	if errors.As(err, &r) || !errors.Is(context.Cause(ctx), errStartup) {
		return err
	}
	return &fleet.ReasonError{Reason: fleet.ReasonTimeoutStartup,
		Err: fmt.Errorf("not ready after %v (timeouts.startup): %w", spec.Startup, err)}
}

func (s *Sandboxes) resolve(ctx context.Context, ref string) (Image, error) {
	if ref == fleet.ImageHost || ref == "" {
		return Image{}, nil
	}
	if s.o.Images == nil {
		return Image{}, &fleet.ReasonError{Reason: fleet.ReasonImage,
			Err: fmt.Errorf("image %s: only the image %q can be used here", ref, fleet.ImageHost)}
	}
	return s.o.Images.Resolve(ctx, ref)
}

// launch makes everything on disk, starts the container and watches it.
func (s *Sandboxes) launch(ctx context.Context, b *box, spec fleet.SandboxSpec, img Image, c *cli) error {
	if err := os.Mkdir(b.dir, 0o711); err != nil {
		if errors.Is(err, os.ErrExist) {
			return fmt.Errorf("left over from an earlier process: adopt or destroy it: %w", fleet.ErrConflict)
		}
		return err
	}
	if err := s.begin(b, spec, img, c); err != nil {
		return err
	}
	if err := s.serve(b); err != nil {
		return err
	}
	p, err := s.plan(b, img)
	if err != nil {
		return err
	}
	if err := s.start(ctx, b, p, img, c); err != nil {
		return err
	}
	return s.attend(b)
}

// begin decides what the record says and writes it, before anything that it
// would be needed to remove.
func (s *Sandboxes) begin(b *box, spec fleet.SandboxSpec, img Image, c *cli) error {
	b.rec = record{Spec: spec, Runtime: c.kind, Token: rand.Text(), Volume: volumeTmpfs,
		Began: time.Now(), Rootless: s.rootless != nil, Env: agentEnv(spec, img), Lower: img.Lower}
	if s.parent != "" {
		b.rec.Cgroup = s.group(spec.ID).Path()
	}
	if s.rootless == nil {
		base, err := s.ranges.take()
		if err != nil {
			return err
		}
		b.rec.Base, b.rec.Volume = base, s.volumes.kind
		if len(img.Lower) > 0 && ImageUIDOffset() != 0 {
			s.ranges.give(base)
			b.rec.Base = ImageUIDOffset()
		}
	}
	b.rec.Lost = s.losses(b.rec)
	return b.rec.write(b.dir)
}

// agentEnv is the environment of the agent, weakest first.
func agentEnv(spec fleet.SandboxSpec, img Image) map[string]string {
	env := coreEnv(spec.Resources)
	for _, kv := range img.Env {
		if k, v, ok := strings.Cut(kv, "="); ok {
			env[k] = v
		}
	}
	maps.Copy(env, spec.Env)
	return env
}

// plan works out the container's configuration.
func (s *Sandboxes) plan(b *box, img Image) (*plan, error) {
	spec := b.rec.Spec
	host := len(img.Lower) == 0
	root, err := s.roots.find(rootKind{host: host, open: spec.Network.Mode == fleet.NetworkOpen,
		image: img.Digest, lower: img.Lower, mounts: spec.Mounts})
	if err != nil {
		return nil, err
	}
	p := &plan{
		spec: spec, runtime: b.rec.Runtime, hostname: hostname(spec.ID), cgroup: b.rec.Cgroup,
		swap: s.boundsSwap(), base: b.rec.Base, rootless: s.rootless, rights: s.rights,
		paths: paths{root: root, run: filepath.Join(b.dir, "run")},
	}
	if host {
		p.trees = hostTrees()
	}
	env := map[string]string{
		"PATH":             "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"MUSTER_SOCKET":    filepath.Join(inside, controlName),
		"MUSTER_TOKEN":     b.rec.Token,
		"MUSTER_UID":       fmt.Sprint(agentUID),
		"MUSTER_GID":       fmt.Sprint(agentUID),
		"MUSTER_HOME":      "/home/agent",
		"MUSTER_WORKSPACE": "/workspace",
		"GOMAXPROCS":       "2", // of the runner: it waits and copies
	}
	if !s.rootless.apart(b.rec.Runtime) {
		env["MUSTER_UID"], env["MUSTER_GID"] = "0", "0"
	}
	if spec.Network.Mode == fleet.NetworkProxy {
		env["MUSTER_PROXY_SOCKET"] = filepath.Join(inside, proxyName)
	}
	p.env = sortedEnv(env)
	return p, nil
}

// boundsSwap reports whether the kernel can bound memory and swap together.
func (s *Sandboxes) boundsSwap() bool {
	if s.layout.Mode == cgroup.V2 {
		return true
	}
	_, err := os.Stat(filepath.Join(s.layout.V1["memory"], "memory.memsw.limit_in_bytes"))
	return err == nil
}

// hostname is the first characters that tell sandboxes apart.
func hostname(id fleet.SandboxID) string { return string(id[:1]) + string(id[9:17]) }

// explain adds what the runner wrote before it died.
func (s *Sandboxes) explain(b *box, err error) error {
	var r *fleet.ReasonError
	if errors.As(err, &r) && r.Reason != fleet.ReasonNodeLost {
		return err
	}
	if text := b.lastWords(); text != "" {
		return fmt.Errorf("%w; the runner wrote: %s", err, text)
	}
	return err
}

// undo removes what a failed Create left, also when its context has ended.
func (s *Sandboxes) undo(b *box) {
	ctx, cancel := context.WithTimeout(context.Background(), removeTime)
	defer cancel()
	if err := s.remove(ctx, b, b.rec); err != nil {
		s.o.Logger.Error("removing a sandbox that did not start", "sandbox", b.id, "error", err)
		return // stays in List for the reaper
	}
	s.mu.Lock()
	if s.boxes[b.id] == b {
		delete(s.boxes, b.id)
	}
	s.mu.Unlock()
}
