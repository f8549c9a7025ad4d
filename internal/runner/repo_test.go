//go:build linux

package runner_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"muster.dev/muster/internal/fleet"
)

// git runs git in dir and returns its output.
func git(t testing.TB, dir string, args ...string) string {
	t.Helper()
	c := exec.Command("git", append([]string{"-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "init.defaultBranch=main"}, args...)...)
	c.Dir = dir
	c.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null")
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("git %v: %v: %s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func write(t testing.TB, file, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// upstream is a repository with two commits, a branch and a tag; it returns
// the first commit.
func upstream(t testing.TB) (dir, first string) {
	t.Helper()
	dir = t.TempDir()
	git(t, dir, "init", "-q")
	write(t, filepath.Join(dir, "a.txt"), "one\n")
	write(t, filepath.Join(dir, "old.txt"), "to be deleted\n")
	git(t, dir, "add", ".")
	git(t, dir, "commit", "-qm", "first")
	git(t, dir, "tag", "v1")
	first = git(t, dir, "rev-parse", "HEAD")
	git(t, dir, "checkout", "-qb", "side")
	write(t, filepath.Join(dir, "side.txt"), "side\n")
	git(t, dir, "add", ".")
	git(t, dir, "commit", "-qm", "side")
	git(t, dir, "checkout", "-q", "main")
	write(t, filepath.Join(dir, "a.txt"), "two\n")
	git(t, dir, "commit", "-qam", "second")
	return dir, first
}

func TestClone(t *testing.T) {
	t.Parallel()
	up, first := upstream(t)
	for _, c := range []struct {
		name, url, ref string
		depth          int
		want           string // of HEAD's branch and files
	}{
		{"default branch", up, "", 1, "main two"},
		{"file url", "file://" + up, "", 1, "main two"},
		{"branch", up, "side", 0, "side one side"},
		{"tag", up, "v1", 1, "HEAD one"},
		{"commit", up, first, 1, "HEAD one"},
		{"short commit", up, first[:9], 0, "HEAD one"},
		{"full ref", up, "refs/heads/side", 1, "HEAD one side"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			a := assign("sh", "-c", "git rev-parse --abbrev-ref HEAD; cat a.txt; cat side.txt 2>/dev/null; true")
			a.Repo = &fleet.Repo{URL: c.url, Ref: c.ref, Depth: c.depth}
			s, r := runTask(t, a)
			got := strings.Join(strings.Fields(s.out(fleet.StreamStdout)), " ")
			if r.Reason != fleet.ReasonNone || got != c.want {
				t.Errorf("%q, want %q: %+v %s", got, c.want, r, s.out(fleet.StreamSystem))
			}
			if r.PatchBytes != 0 || r.PatchNote != "" {
				t.Errorf("patch of nothing: %d, %q", r.PatchBytes, r.PatchNote)
			}
		})
	}
}

func TestCloneFails(t *testing.T) {
	t.Parallel()
	up, _ := upstream(t)
	for _, c := range []struct{ name, url, ref, want string }{
		{"no repository", filepath.Join(up, "nowhere"), "", "does not exist"},
		{"no branch", up, "nobranch", "nobranch not found"},
		{"no commit", up, strings.Repeat("ab", 20), ""},
		{"an option", "--upload-pack=touch /tmp/pwned", "", ""},
		{"ref is an option", up, "--upload-pack=touch", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			a := assign("true")
			a.Repo = &fleet.Repo{URL: c.url, Ref: c.ref, Depth: 1}
			_, r := runTask(t, a)
			if r.Reason != fleet.ReasonSetup || !strings.Contains(r.Message, "git ") || !strings.Contains(r.Message, c.want) {
				t.Errorf("%+v", r)
			}
		})
	}
}

func TestCloneHidesThePassword(t *testing.T) {
	t.Parallel()
	a := assign("true")
	a.Repo = &fleet.Repo{URL: "https://user:hunter2@127.0.0.1:1/x.git"}
	s, r := runTask(t, a)
	if r.Reason != fleet.ReasonSetup || strings.Contains(r.Message+s.out(fleet.StreamSystem), "hunter2") {
		t.Errorf("%+v %s", r, s.out(fleet.StreamSystem))
	}
}

func TestPreparedRepoIsUsed(t *testing.T) {
	t.Parallel()
	up, _ := upstream(t)
	b := newBox(t)
	b.o.Prepare = []string{"git clone -q " + up + " .", "echo built > artifact.bin"}
	b.start().ready()
	// The world moves on after prepare.
	write(t, filepath.Join(up, "a.txt"), "three\n")
	git(t, up, "commit", "-qam", "third")
	s := newSink()
	a := assign("sh", "-c", "cat a.txt artifact.bin; echo mine > mine.txt")
	a.Repo = &fleet.Repo{URL: up + "/", Depth: 1}
	if err := b.s.Claim(wait(t), a, s); err != nil {
		t.Fatal(err)
	}
	r := b.finish(s)
	if got := s.out(fleet.StreamStdout); r.Reason != fleet.ReasonNone || got != "three\nbuilt\n" {
		t.Errorf("%q %+v %s", got, r, s.out(fleet.StreamSystem))
	}
	if !strings.Contains(s.out(fleet.StreamSystem), "updating") {
		t.Errorf("notes %q", s.out(fleet.StreamSystem))
	}
}

func TestPreparedRepoWithoutNetwork(t *testing.T) {
	t.Parallel()
	up, first := upstream(t)
	for _, ref := range []string{"", "side", "v1", first, "gone"} {
		t.Run("ref "+ref, func(t *testing.T) {
			t.Parallel()
			mine := filepath.Join(t.TempDir(), "up")
			if out, err := exec.Command("cp", "-r", up, mine).CombinedOutput(); err != nil {
				t.Fatal(err, string(out))
			}
			b := newBox(t)
			b.o.Prepare = []string{"git clone -q " + mine + " ."}
			b.start().ready()
			if err := os.Rename(mine, mine+"-away"); err != nil {
				t.Fatal(err)
			}
			s := newSink()
			a := assign("cat", "a.txt")
			a.Repo = &fleet.Repo{URL: mine, Ref: ref}
			if err := b.s.Claim(wait(t), a, s); err != nil {
				t.Fatal(err)
			}
			r := b.finish(s)
			want := map[string]string{"": "two\n", "gone": ""}[ref]
			if ref != "" && ref != "gone" {
				want = "one\n"
			}
			if got := s.out(fleet.StreamStdout); got != want || (r.Reason == fleet.ReasonSetup) != (ref == "gone") {
				t.Errorf("%q %+v %s", got, r, s.out(fleet.StreamSystem))
			}
		})
	}
}

const changes = `
echo changed > a.txt
mkdir new; echo "new file" > new/file.txt
rm old.txt
head -c 5000 /dev/urandom > image.bin
chmod +x side.sh 2>/dev/null
echo ignored > ignored.o
`

func TestPatchAppliesToTheBase(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, script string }{
		{"working tree", changes},
		{"committed", changes + "git add -A; git -c user.name=x -c user.email=x@x commit -qm work"},
		{"half and half", "echo early > early.txt; git add -A; git -c user.name=x -c user.email=x@x commit -qm work; " + changes},
		{"staged", changes + "git add -A"},
		{"other branch", "git checkout -q -b feature; " + changes + "git add -A; git -c user.name=x -c user.email=x@x commit -qm work"},
		{"hostile config", changes + `git config diff.external /bin/false; git config diff.noprefix true; git config core.fsmonitor /bin/false
			git config color.diff always; echo '* diff=evil' > .gitattributes; git config diff.evil.textconv 'echo evil'; touch .git/index.lock
			git config core.pager 'false'; git config diff.mnemonicPrefix true; mkdir -p hooks; git config core.hooksPath hooks`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			up, _ := upstream(t)
			write(t, filepath.Join(up, ".gitignore"), "*.o\n")
			git(t, up, "add", ".")
			git(t, up, "commit", "-qm", "ignore")
			b := newBox(t).start().ready()
			s := newSink()
			a := assign("sh", "-c", c.script+"\nexit 0")
			a.Repo = &fleet.Repo{URL: up, Depth: 1}
			if err := b.s.Claim(wait(t), a, s); err != nil {
				t.Fatal(err)
			}
			r := b.finish(s)
			if r.Reason != fleet.ReasonNone || r.PatchNote != "" || r.PatchBytes != int64(len(s.patch)) || len(s.patch) == 0 {
				t.Fatalf("%+v; %d bytes; %s", r, len(s.patch), s.out(fleet.StreamStderr))
			}
			fresh := t.TempDir()
			git(t, fresh, "clone", "-q", up, ".")
			patch := filepath.Join(t.TempDir(), "patch")
			write(t, patch, string(s.patch))
			git(t, fresh, "apply", patch)
			for _, f := range []string{"a.txt", "new/file.txt", "image.bin"} {
				want, _ := os.ReadFile(filepath.Join(b.workspace, f))
				got, err := os.ReadFile(filepath.Join(fresh, f))
				if err != nil || string(got) != string(want) {
					t.Errorf("%s: %v, %d bytes, want %d", f, err, len(got), len(want))
				}
			}
			for _, f := range []string{"old.txt", "ignored.o"} {
				if _, err := os.Stat(filepath.Join(fresh, f)); err == nil {
					t.Errorf("%s exists", f)
				}
			}
		})
	}
}

func TestPatchNotes(t *testing.T) {
	t.Parallel()
	up, _ := upstream(t)
	for _, c := range []struct {
		name, script, note string
		repo               bool
	}{
		{"no repository", "git init -q; echo a > a", "no git repository", false},
		{"deleted repository", "rm -rf .git", "is gone", true},
		{"another repository", "rm -rf .git; git init -q", "no patch: git diff", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			a := assign("sh", "-c", c.script)
			if c.repo {
				a.Repo = &fleet.Repo{URL: up}
			}
			s, r := runTask(t, a)
			if !strings.Contains(r.PatchNote, c.note) || s.patch != nil || r.PatchBytes != 0 {
				t.Errorf("%+v", r)
			}
		})
	}
}

func TestLargePatchIsSpooled(t *testing.T) {
	t.Parallel()
	up, _ := upstream(t)
	a := assign("sh", "-c", "head -c 6000000 /dev/urandom > big.bin")
	a.Repo = &fleet.Repo{URL: up}
	s, r := runTask(t, a)
	if r.PatchNote != "" || len(s.patch) < 6000000 || r.PatchBytes != int64(len(s.patch)) {
		t.Errorf("%d bytes, %+v", len(s.patch), r)
	}
}

func TestPrepareIsNotInThePatch(t *testing.T) {
	t.Parallel()
	up, _ := upstream(t)
	b := newBox(t)
	b.o.Prepare = []string{"git clone -q " + up + " .", "echo generated > gen.txt; echo two-and-a-half > a.txt"}
	b.start().ready()
	s := newSink()
	if err := b.s.Claim(wait(t), assign("sh", "-c", "echo mine > mine.txt"), s); err != nil {
		t.Fatal(err)
	}
	b.finish(s)
	if p := string(s.patch); !strings.Contains(p, "mine.txt") || strings.Contains(p, "gen.txt") || strings.Contains(p, "a.txt") {
		t.Errorf("%s", p)
	}
}

func TestArtifacts(t *testing.T) {
	t.Parallel()
	secret := filepath.Join(t.TempDir(), "secret")
	write(t, secret, "host secret")
	script := `
mkdir -p dist/sub deep/a/b node_modules/x
echo 1 > dist/one; echo 2 > dist/sub/two; echo log > deep/a/b/x.log; echo top > top.log
ln -s ` + secret + ` dist/escape
ln -s ../../../../../../etc/passwd dist/relative
ln -s /proc/self/environ dist/environ
ln -s one dist/inside
ln -s / root
mkfifo dist/fifo
printf '' > dist/empty
touch "$(printf 'dist/bad\nname')"
head -c 300000 /dev/zero > dist/big`
	a := assign("sh", "-c", script)
	a.Artifacts = []string{"dist", "**/*.log", "root/etc/hostname", "nothing/*", "../up", "/etc/passwd", "[", "./top.log"}
	s, r := runTask(t, a)
	if r.Reason != fleet.ReasonNone {
		t.Fatalf("%+v", r)
	}
	var got []string
	for p, content := range s.artifacts {
		got = append(got, p)
		if strings.Contains(string(content), "secret") || strings.Contains(string(content), "root:") {
			t.Errorf("%s escaped: %q", p, content)
		}
	}
	slices.Sort(got)
	want := []string{"deep/a/b/x.log", "dist/big", "dist/empty", "dist/inside", "dist/one", "dist/sub/two", "top.log"}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if len(r.Artifacts) != len(want) || len(s.artifacts["dist/big"]) != 300000 || string(s.artifacts["dist/inside"]) != "1\n" {
		t.Errorf("%+v", r.Artifacts)
	}
	for _, note := range []string{"nothing/*", "../up", "/etc/passwd", `"["`, "lead out of the workspace", "not regular", "cannot be stored"} {
		if !strings.Contains(r.ArtifactNote, note) {
			t.Errorf("note %q lacks %q", r.ArtifactNote, note)
		}
	}
}

func TestTooManyArtifacts(t *testing.T) {
	t.Parallel()
	a := assign("sh", "-c", "mkdir d; cd d; for i in $(seq 1100); do : > f$i; done")
	a.Artifacts = []string{"d/*"}
	s, r := runTask(t, a)
	if len(r.Artifacts) != 1000 || len(s.artifacts) != 1000 || !strings.Contains(r.ArtifactNote, "only the first 1000") {
		t.Errorf("%d, %d, %q", len(r.Artifacts), len(s.artifacts), r.ArtifactNote)
	}
}

func TestFilesAreCollectedFromAFailedTask(t *testing.T) {
	t.Parallel()
	up, _ := upstream(t)
	a := assign("sh", "-c", "echo half > half.txt; exec sleep 60")
	a.Repo, a.Artifacts, a.Timeouts.Run = &fleet.Repo{URL: up}, []string{"half.txt"}, 300*time.Millisecond
	s, r := runTask(t, a)
	if r.Reason != fleet.ReasonTimeoutRun || !strings.Contains(string(s.patch), "half") || len(s.artifacts) != 1 {
		t.Errorf("%+v %q", r, s.patch)
	}
}
