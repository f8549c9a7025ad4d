package archivetest

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"

	"muster.dev/muster/internal/fleet"
)

func testFiles(f *fixture) {
	id := f.id()
	large := strings.Repeat("0123456789abcdef", 100_000)
	for _, name := range []string{"patch", "artifacts/a.txt", "artifacts/deep/er/ünï code", "artifacts/log.1"} {
		for _, content := range []string{"first", "replaced\x00", large, ""} {
			if n, err := f.a.PutFile(id, name, strings.NewReader(content)); err != nil || n != int64(len(content)) {
				f.Fatalf("%s: %d, %v", name, n, err)
			}
			if got := f.file(id, name); got != content {
				f.Errorf("%s: %d bytes, want %d", name, len(got), len(content))
			}
		}
	}
	for _, absent := range []string{"artifacts/none", "artifacts/deep"} {
		_, err := f.a.OpenFile(id, absent)
		f.is(err, fleet.ErrNotFound, "open "+absent)
	}
	_, err := f.a.OpenFile(f.id(), "patch")
	f.is(err, fleet.ErrNotFound, "patch of another task")
}

func testNames(f *fixture) {
	id := f.id()
	for _, name := range []string{"artifacts/a.txt", "artifacts/deep/er/x"} {
		if _, err := f.a.PutFile(id, name, strings.NewReader("x")); err != nil {
			f.Fatal(err)
		}
	}
	for _, bad := range []string{
		"", "log.1", "artifacts", "artifacts/", "artifacts/.", "artifacts/..", "artifacts/../patch", "artifacts/a/../../x", "/etc/passwd",
		"artifacts//x", "artifacts/x/", "artifacts/\x00", "patch/x", "../patch", "artifacts/" + strings.Repeat("x", 300), "artifacts/" + strings.Repeat("x/", 600) + "y",
		"artifacts/a.txt/b", "artifacts/deep", "artifacts/\xff",
	} {
		_, err := f.a.PutFile(id, bad, strings.NewReader("x"))
		f.is(err, fleet.ErrInvalid, "put "+bad)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func testBroken(f *fixture) {
	id := f.id()
	broken := errors.New("connection lost")
	half := strings.Repeat("half ", 200_000)
	_, err := f.a.PutFile(id, "artifacts/new", io.MultiReader(strings.NewReader(half), failing{broken}))
	f.is(err, broken, "failing reader")
	_, err = f.a.OpenFile(id, "artifacts/new")
	f.is(err, fleet.ErrNotFound, "half a file")
	if _, err := f.a.PutFile(id, "patch", strings.NewReader("whole")); err != nil {
		f.Fatal(err)
	}
	_, err = f.a.PutFile(id, "patch", io.MultiReader(strings.NewReader(half), failing{broken}))
	f.is(err, broken, "failing reader")
	if got := f.file(id, "patch"); got != "whole" {
		f.Errorf("patch %.100q", got)
	}
}

func testSeek(f *fixture) {
	id := f.id()
	content := make([]byte, 600_000)
	for i := range content {
		content[i] = byte(i * 7 / 5)
	}
	if _, err := f.a.PutFile(id, "patch", bytes.NewReader(content)); err != nil {
		f.Fatal(err)
	}
	r, err := f.a.OpenFile(id, "patch")
	if err != nil {
		f.Fatal(err)
	}
	defer r.Close()
	for _, at := range []int64{0, 262_143, 262_144, 524_287, 599_999, 600_000, 5} {
		if n, err := r.Seek(at, io.SeekStart); n != at || err != nil {
			f.Fatalf("seek to %d: %d, %v", at, n, err)
		}
		got, err := io.ReadAll(io.LimitReader(r, 100))
		if want := content[at:min(at+100, 600_000)]; err != nil || !bytes.Equal(got, want) {
			f.Errorf("at %d: %d bytes, %v", at, len(got), err)
		}
	}
	if n, err := r.Seek(-10, io.SeekEnd); n != 599_990 || err != nil {
		f.Errorf("seek from the end: %d, %v", n, err)
	}
	if n, err := r.Seek(5, io.SeekCurrent); n != 599_995 || err != nil {
		f.Errorf("seek on: %d, %v", n, err)
	}
	if rest, err := io.ReadAll(r); err != nil || !bytes.Equal(rest, content[599_995:]) {
		f.Errorf("the rest: %d bytes, %v", len(rest), err)
	}
	if _, err := r.Seek(-1, io.SeekStart); err == nil {
		f.Error("a seek before the start succeeded")
	}
}

func testReplaced(f *fixture) {
	id, old := f.id(), strings.Repeat("old", 300_000)
	if _, err := f.a.PutFile(id, "patch", strings.NewReader(old)); err != nil {
		f.Fatal(err)
	}
	r, err := f.a.OpenFile(id, "patch")
	if err != nil {
		f.Fatal(err)
	}
	defer r.Close()
	if _, err := io.CopyN(io.Discard, r, 10); err != nil {
		f.Fatal(err)
	}
	if _, err := f.a.PutFile(id, "patch", strings.NewReader("new")); err != nil {
		f.Fatal(err)
	}
	if rest, err := io.ReadAll(r); err != nil || string(rest) != old[10:] {
		f.Errorf("a reader of what was replaced got %d bytes, %v", len(rest), err)
	}
	if got := f.file(id, "patch"); got != "new" {
		f.Errorf("patch %.20q", got)
	}
}

func (f *fixture) tasks() []fleet.TaskID {
	f.Helper()
	var all []fleet.TaskID
	if err := f.a.Tasks(func(id fleet.TaskID) error { all = append(all, id); return nil }); err != nil {
		f.Fatal(err)
	}
	slices.Sort(all)
	return all
}

func testRemove(f *fixture) {
	id, other, third := f.id(), f.id(), f.id()
	f.put(id, rec(0, "x"))
	f.put(other, rec(0, "y"))
	for _, id := range []fleet.TaskID{id, third} {
		if _, err := f.a.PutFile(id, "artifacts/a/b", strings.NewReader("x")); err != nil {
			f.Fatal(err)
		}
	}
	want := []fleet.TaskID{id, other, third}
	slices.Sort(want)
	if got := f.tasks(); !slices.Equal(got, want) {
		f.Errorf("tasks %v, want %v", got, want)
	}
	stop := errors.New("enough")
	f.is(f.a.Tasks(func(fleet.TaskID) error { return stop }), stop, "the caller's own error")
	for range 2 {
		if err := f.a.Remove(id); err != nil {
			f.Fatal(err)
		}
	}
	if f.size(id) != 0 || f.size(other) != 1 || len(f.tasks()) != 2 {
		f.Errorf("after the removal: sizes %d and %d, tasks %v", f.size(id), f.size(other), f.tasks())
	}
	_, err := f.a.OpenFile(id, "artifacts/a/b")
	f.is(err, fleet.ErrNotFound, "a removed file")
	f.put(id, rec(0, "new"))
	if got := f.text(id, 0); got != "new" {
		f.Errorf("log after the removal: %q", got)
	}
}

func testReopen(f *fixture) {
	id := f.id()
	f.put(id, rec(0, "kept"))
	if _, err := f.a.PutFile(id, "patch", strings.NewReader("diff")); err != nil {
		f.Fatal(err)
	}
	f.a = f.Reopen(f).Archive
	if got := f.text(id, 0); got != "kept" {
		f.Errorf("log %q", got)
	}
	if got := f.file(id, "patch"); got != "diff" {
		f.Errorf("patch %q", got)
	}
	f.put(id, rec(4, " on"))
	if got := f.text(id, 0); got != "kept on" {
		f.Errorf("log %q", got)
	}
}
