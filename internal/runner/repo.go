//go:build linux

package runner

import (
	"bytes"
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"muster.dev/muster/internal/fleet"
)

// gitArgs are set for every git the runner starts. The directory belongs to
// the agent and so does git's user, but a prepared or mounted repository may
// belong to another.
var gitArgs = []string{
	"git", "-c", "safe.directory=*", "-c", "gc.auto=0", "-c", "maintenance.auto=false",
	"-c", "advice.detachedHead=false", "-c", "core.fsmonitor=false",
}

// git returns a git command in the workspace that never asks anybody.
func (r *Runner) git(env []string, args ...string) command {
	argv := append(append([]string(nil), gitArgs...), args...)
	env = append(append([]string(nil), env...), "GIT_TERMINAL_PROMPT=0", "GIT_OPTIONAL_LOCKS=0")
	if !hasEnv(env, "GIT_SSH_COMMAND") && !hasEnv(env, "GIT_SSH") {
		env = append(env, "GIT_SSH_COMMAND=ssh -o BatchMode=yes")
	}
	if !hasEnv(env, "GIT_ASKPASS") {
		env = append(env, "GIT_ASKPASS=true")
	}
	return command{argv: argv, env: env, dir: r.c.Workspace}
}

func hasEnv(env []string, name string) bool {
	for _, kv := range env {
		if strings.HasPrefix(kv, name+"=") {
			return true
		}
	}
	return false
}

// ask runs a quick git command and returns its trimmed output; empty when it
// failed.
func (r *Runner) ask(st *steps, env []string, args ...string) string {
	var out bytes.Buffer
	o := st.capture(r.git(env, args...), &limitedBuffer{b: &out, left: 64 << 10})
	if !o.ok() {
		return ""
	}
	return strings.TrimSpace(out.String())
}

// hasGit reports whether the workspace is a repository, without asking git.
func (r *Runner) hasGit() (found bool) {
	r.a.as(func() {
		_, err := os.Lstat(r.inWorkspace(".git"))
		found = err == nil
	})
	return found
}

// rememberBase keeps what prepare left in the workspace, so that a patch shows
// the task's changes and not prepare's.
func (r *Runner) rememberBase(tmpl map[string]string) {
	if !r.hasGit() {
		return
	}
	env := r.environ(nil, tmpl)
	ctx, cancel := context.WithTimeout(r.ctx, 30*time.Second)
	defer cancel()
	st := &steps{a: r.a, ctx: ctx}
	head := r.ask(st, env, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
	if head == "" {
		return
	}
	r.head, r.base = head, head
	if r.ask(st, env, "status", "--porcelain", "--untracked-files=normal") == "" {
		return
	}
	// Files prepare made and nobody ignores: a tree of them, through an
	// index of our own.
	index := filepath.Join(r.tempDir(), "muster-index-"+head[:8])
	env = append(env, "GIT_INDEX_FILE="+index)
	defer r.a.as(func() { _ = os.Remove(index) })
	st.capture(r.git(env, "read-tree", head), discard{})
	st.capture(r.git(env, "add", "-A", "--ignore-errors", "."), discard{})
	if tree := r.ask(st, env, "write-tree"); tree != "" {
		r.base = tree
	}
}

// checkout brings the task's repository into the workspace. It returns nil, or
// the step that failed.
func (t *task) checkout() *failure {
	repo := *t.a.Repo
	shown := redactURL(repo.URL)
	var f *failure
	if t.prepared(repo.URL) {
		f = t.update(repo, shown)
	} else {
		f = t.clone(repo, shown)
	}
	if f != nil {
		return f
	}
	head := t.r.ask(t.steps, t.env, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
	if head == "" {
		t.base = "" // an empty repository
		t.log.note("the repository has no commit yet")
		return nil
	}
	if head != t.r.head {
		t.base = head
	}
	t.log.note("%s at %.12s", shown, head)
	return nil
}

// prepared reports whether the workspace holds this very repository already.
func (t *task) prepared(u string) bool {
	return t.r.head != "" && sameRepo(t.r.ask(t.steps, t.env, "config", "--get", "remote.origin.url"), u)
}

func sameRepo(a, b string) bool {
	norm := func(s string) string {
		if u, err := url.Parse(s); err == nil && u.Host != "" {
			u.User = nil
			s = u.String()
		}
		return strings.TrimSuffix(strings.TrimSuffix(s, "/"), ".git")
	}
	return norm(a) == norm(b)
}

// redactURL hides a password in a URL.
func redactURL(s string) string {
	if u, err := url.Parse(s); err == nil && u.User != nil {
		u.User = url.User("…")
		return u.String()
	}
	return s
}

// gitStep runs one git command with its output in the log.
func (t *task) gitStep(what string, args ...string) *failure {
	o := t.steps.run(t.r.git(t.env, args...), fleet.ReasonTimeoutStartup)
	if o.ok() {
		return nil
	}
	return &failure{o: o, what: what}
}

// transport are the arguments for reaching url: git's own server process, run
// here for a repository on disk, must trust its owner too.
func transport(u string) []string {
	if strings.HasPrefix(u, "file://") || strings.HasPrefix(u, "/") || strings.HasPrefix(u, ".") {
		return []string{"--upload-pack=git -c 'safe.directory=*' upload-pack"}
	}
	return nil
}

func depthArgs(depth int) []string {
	if depth > 0 {
		return []string{fmt.Sprintf("--depth=%d", depth)}
	}
	return nil
}

// isCommit reports whether ref looks like (the beginning of) a commit id.
func isCommit(ref string) bool {
	return len(ref) >= 7 && len(ref) <= 64 && strings.Trim(ref, "0123456789abcdef") == ""
}

// clone fills the workspace. A branch or tag is cloned; everything else a ref
// may be is fetched.
func (t *task) clone(repo fleet.Repo, shown string) *failure {
	t.log.note("cloning %s%s", shown, refNote(repo.Ref))
	empty := false
	t.r.a.as(func() {
		list, err := os.ReadDir(t.r.c.Workspace)
		empty = err == nil && len(list) == 0
	})
	plain := repo.Ref == "" || !isCommit(repo.Ref) && !strings.HasPrefix(repo.Ref, "refs/")
	if !empty || !plain {
		return t.cloneByFetch(repo, shown)
	}
	args := []string{"clone", "--no-local", "--quiet"}
	args = append(append(args, transport(repo.URL)...), depthArgs(repo.Depth)...)
	if repo.Ref != "" {
		args = append(args, "--branch", repo.Ref)
	}
	return t.gitStep("git clone "+shown+refNote(repo.Ref), append(args, "--", repo.URL, ".")...)
}

func refNote(ref string) string {
	if ref == "" {
		return ""
	}
	return " (" + shorten(ref, 200) + ")"
}

func (t *task) cloneByFetch(repo fleet.Repo, shown string) *failure {
	if f := t.gitStep("git init", "init", "--quiet", "."); f != nil {
		return f
	}
	// The workspace may be a repository with another origin.
	t.steps.capture(t.r.git(t.env, "remote", "remove", "origin"), discard{})
	if f := t.gitStep("git remote add", "remote", "add", "--", "origin", repo.URL); f != nil {
		return f
	}
	return t.fetch(repo, shown)
}

// update brings a prepared workspace to the ref.
func (t *task) update(repo fleet.Repo, shown string) *failure {
	if isCommit(repo.Ref) && len(repo.Ref) >= 40 &&
		t.r.ask(t.steps, t.env, "cat-file", "-t", repo.Ref) == "commit" {
		return t.switchTo(repo.Ref, repo, shown)
	}
	t.log.note("updating the prepared %s%s", shown, refNote(repo.Ref))
	f := t.fetch(repo, shown)
	if f == nil || f.o.stopped != fleet.ReasonNone {
		return f
	}
	// Without a network the prepared state is all there is, if it has the ref.
	local := "HEAD"
	if repo.Ref != "" {
		local = ""
		for _, name := range []string{"refs/remotes/origin/" + repo.Ref, "refs/tags/" + repo.Ref, repo.Ref} {
			if t.r.ask(t.steps, t.env, "rev-parse", "--verify", "--quiet", name+"^{commit}") != "" {
				local = name
				break
			}
		}
	}
	if local == "" {
		return f
	}
	t.log.note("%s %s; going on with what was prepared", f.what, f.o.what())
	if local == "HEAD" {
		return nil
	}
	return t.switchTo(local, repo, shown)
}

// fetch gets the ref from origin and checks it out.
func (t *task) fetch(repo fleet.Repo, shown string) *failure {
	want := repo.Ref
	if want == "" {
		want = "HEAD"
	}
	what := "git fetch " + shown + refNote(repo.Ref)
	args := append(append([]string{"fetch", "--quiet"}, transport(repo.URL)...), depthArgs(repo.Depth)...)
	f := t.gitStep(what, append(args, "--", "origin", want)...)
	if f == nil {
		return t.switchTo("FETCH_HEAD", repo, shown)
	}
	if f.o.stopped != fleet.ReasonNone || !isCommit(repo.Ref) {
		return f
	}
	// A server that does not hand out single commits: everything, then.
	args = append(append([]string{"fetch", "--quiet", "--tags"}, transport(repo.URL)...), "--", "origin")
	if g := t.gitStep(what, args...); g != nil {
		return g
	}
	return t.switchTo(repo.Ref, repo, shown)
}

// switchTo checks commit out; on the branch of the ref's name where it is one
// that can carry it.
func (t *task) switchTo(commit string, repo fleet.Repo, shown string) *failure {
	what := "git checkout of " + shown + refNote(repo.Ref)
	if ref := repo.Ref; ref != "" && !isCommit(ref) && !strings.HasPrefix(ref, "refs/") {
		tag := t.r.ask(t.steps, t.env, "rev-parse", "--verify", "--quiet", "refs/tags/"+ref)
		if tag == "" {
			return t.gitStep(what, "checkout", "--quiet", "-B", ref, commit, "--")
		}
	}
	if repo.Ref == "" {
		if branch := t.r.ask(t.steps, t.env, "symbolic-ref", "--quiet", "--short", "HEAD"); branch != "" {
			return t.gitStep(what, "checkout", "--quiet", "-B", branch, commit, "--")
		}
	}
	return t.gitStep(what, "checkout", "--quiet", "--detach", commit, "--")
}

// discard drops what is written.
type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

// limitedBuffer keeps the first bytes and drops the rest.
type limitedBuffer struct {
	b    *bytes.Buffer
	left int
}

func (l *limitedBuffer) Write(p []byte) (int, error) {
	n := min(len(p), l.left)
	l.b.Write(p[:n])
	l.left -= n
	return len(p), nil
}
