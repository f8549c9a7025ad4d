package image

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	whiteoutPrefix = ".wh."
	whiteoutOpaque = ".wh..wh..opq"
	whiteoutMeta   = ".wh..wh." // aufs's own files

	// idRange is how many ids a sandbox has; owners beyond become nobody.
	idRange = 65536
	nobody  = 65534
)

// unpacker writes the entries of one layer.
type unpacker struct {
	t    *tree
	form form
	left *budget
	note layerNote
	dirs map[string]*tar.Header // modes and times are set at the end
}

// unpack writes the tar stream to dir, which exists and is empty.
func unpack(dir string, r io.Reader, f form, left *budget) (layerNote, error) {
	t, err := openTree(dir, f.opaque)
	if err != nil {
		return layerNote{}, err
	}
	defer t.close()
	u := &unpacker{t: t, form: f, left: left, dirs: map[string]*tar.Header{}}
	t.made = u.implied
	u.implied(".")
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return u.note, u.finishDirs()
		}
		if err != nil && !(errors.Is(err, tar.ErrInsecurePath) && h != nil) {
			return layerNote{}, fmt.Errorf("read the tar stream: %w", err)
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		if err := u.entry(h, tr); err != nil {
			return layerNote{}, fmt.Errorf("entry %q: %w", h.Name, err)
		}
	}
}

// implied notes a directory that has no entry of its own (yet).
func (u *unpacker) implied(name string) {
	u.dirs[name] = &tar.Header{Mode: 0o755}
}

func (u *unpacker) entry(h *tar.Header, r io.Reader) error {
	size := h.Size
	if h.Typeflag != tar.TypeReg {
		size = 0
	}
	if err := u.left.take(size); err != nil {
		return err
	}
	u.note.Entries++
	name, err := cleanName(h.Name)
	if err != nil {
		return err
	}
	if base := path.Base(name); strings.HasPrefix(base, whiteoutPrefix) {
		return u.whiteout(path.Dir(name), base)
	}
	switch h.Typeflag {
	case tar.TypeDir:
		if name != "." {
			if err := u.directory(name); err != nil {
				return err
			}
		}
		u.dirs[name] = h
		return nil
	case tar.TypeChar, tar.TypeBlock:
		u.note.Devices++
		return nil // a sandbox has its own few
	}
	if name == "." {
		return errors.New("the root of a layer must be a directory")
	}
	return u.leaf(name, h, r)
}

// leaf writes what is not a directory.
func (u *unpacker) leaf(name string, h *tar.Header, r io.Reader) error {
	at, base, err := u.t.parent(name)
	if err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeReg:
		return u.file(at, base, h, r)
	case tar.TypeSymlink:
		err = u.t.place(at, base, func() error { return unix.Symlinkat(h.Linkname, at, base) })
	case tar.TypeFifo:
		err = u.t.place(at, base, func() error { return unix.Mknodat(at, base, unix.S_IFIFO|0o600, 0) })
	case tar.TypeLink:
		return u.link(name, h)
	default:
		return fmt.Errorf("unknown type %q", h.Typeflag)
	}
	if err != nil {
		return err
	}
	if err := u.chown(at, base, h); err != nil {
		return err
	}
	if h.Typeflag == tar.TypeFifo {
		if err := unix.Fchmodat(at, base, u.mode(h), 0); err != nil {
			return fmt.Errorf("set mode: %w", err)
		}
	}
	return setTimes(at, base, h)
}

func (u *unpacker) file(at int, base string, h *tar.Header, r io.Reader) error {
	f, err := u.t.create(at, base)
	if err != nil {
		return err
	}
	n, err := io.Copy(f, r)
	u.note.Bytes += n
	if err == nil {
		err = u.attributes(int(f.Fd()), h)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return setTimes(at, base, h)
}

// link makes a hard link to an earlier entry of the same layer; where that is
// a symbolic link, to the link itself.
func (u *unpacker) link(name string, h *tar.Header) error {
	target, err := cleanName(h.Linkname)
	if err != nil {
		return fmt.Errorf("link to %q: %w", h.Linkname, err)
	}
	if target == name {
		return nil
	}
	from, tbase, err := u.t.existingParent(target)
	if err != nil {
		return fmt.Errorf("link to %q, which is not in this layer: %w", h.Linkname, err)
	}
	defer unix.Close(from)
	at, base, err := u.t.parent(name)
	if err != nil {
		return err
	}
	if err := u.t.place(at, base, func() error { return unix.Linkat(from, tbase, at, base, 0) }); err != nil {
		return fmt.Errorf("link to %q: %w", h.Linkname, err)
	}
	return nil
}

// directory makes name a directory, keeping one that is there. One that takes
// the place of a whiteout hides what the layers below have of that name.
func (u *unpacker) directory(name string) error {
	at, base, err := u.t.parent(name)
	if err != nil {
		return err
	}
	kind, err := u.t.kind(at, base)
	if err != nil {
		return err
	}
	if kind == kindDir {
		return nil
	}
	if err := u.t.place(at, base, func() error { return unix.Mkdirat(at, base, 0o700) }); err != nil {
		return err
	}
	if kind == kindWhiteout {
		return u.t.setOpaque(name)
	}
	return nil
}

// whiteout hides base, without its prefix, of the layers below. It never
// touches what this layer itself has, whatever the order of the entries.
func (u *unpacker) whiteout(dir, base string) error {
	if base == whiteoutOpaque {
		if dir == "." {
			u.note.OpaqueRoot = true
			return nil
		}
		if err := u.directory(dir); err != nil {
			return err
		}
		if _, known := u.dirs[dir]; !known {
			u.implied(dir)
		}
		return u.t.setOpaque(dir)
	}
	if strings.HasPrefix(base, whiteoutMeta) {
		return nil
	}
	hidden := strings.TrimPrefix(base, whiteoutPrefix)
	if hidden == "" || hidden == "." || hidden == ".." {
		return errors.New("a whiteout of no name")
	}
	name := path.Join(dir, hidden)
	at, hidden, err := u.t.parent(name)
	if err != nil {
		return err
	}
	kind, err := u.t.kind(at, hidden)
	switch {
	case err != nil:
		return err
	case kind == kindDir:
		return u.t.setOpaque(name)
	case kind != kindNone:
		return nil
	}
	if err := unix.Mknodat(at, hidden, unix.S_IFCHR, 0); err != nil {
		return fmt.Errorf("make whiteout (rootless needs Linux 5.8): %w", err)
	}
	return nil
}

// finishDirs sets what the writing of a directory's entries would disturb.
func (u *unpacker) finishDirs() error {
	for name, h := range u.dirs {
		fd, err := u.t.openDir(name)
		if err != nil {
			continue // replaced by a later entry
		}
		err = u.attributes(fd, h)
		if err == nil && !h.ModTime.IsZero() {
			err = setTimes(fd, "", h)
		}
		_ = unix.Close(fd)
		if err != nil {
			return fmt.Errorf("directory %q: %w", name, err)
		}
	}
	return nil
}

func (u *unpacker) owner(id int) int {
	if id < 0 || id >= idRange {
		id = nobody
	}
	return u.form.offset + id
}

func (u *unpacker) chown(at int, base string, h *tar.Header) error {
	if !u.form.chown {
		return nil
	}
	if err := unix.Fchownat(at, base, u.owner(h.Uid), u.owner(h.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("set owner: %w", err)
	}
	return nil
}

// mode leaves the set-id bits only where they name an id without power on the
// host; a sandbox has no_new_privs and ignores them in any case.
func (u *unpacker) mode(h *tar.Header) uint32 {
	m := uint32(h.Mode) & 0o7777
	if u.form.offset == 0 {
		m &^= unix.S_ISUID | unix.S_ISGID
	}
	if !u.form.chown {
		m |= 0o600 // ours to read, and to remove again
		if h.Typeflag == tar.TypeDir || h.Typeflag == 0 {
			m |= 0o700
		}
	}
	return m
}

func (u *unpacker) attributes(fd int, h *tar.Header) error {
	if u.form.chown {
		if err := unix.Fchown(fd, u.owner(h.Uid), u.owner(h.Gid)); err != nil {
			return fmt.Errorf("set owner: %w", err)
		}
	}
	if err := unix.Fchmod(fd, u.mode(h)); err != nil {
		return fmt.Errorf("set mode: %w", err)
	}
	for k, v := range h.PAXRecords {
		name, ok := strings.CutPrefix(k, "SCHILY.xattr.")
		if !ok || !strings.HasPrefix(name, "user.") || strings.HasPrefix(name, "user.overlay.") {
			continue
		}
		if err := unix.Fsetxattr(fd, name, []byte(v), 0); err != nil && !errors.Is(err, unix.ENOTSUP) {
			return fmt.Errorf("set attribute %s: %w", name, err)
		}
	}
	return nil
}

func setTimes(at int, base string, h *tar.Header) error {
	ts, err := unix.TimeToTimespec(h.ModTime)
	if err != nil {
		return nil // a time the kernel cannot hold is not worth an image
	}
	if base == "" {
		return unix.UtimesNanoAt(unix.AT_FDCWD, fdPath(at), []unix.Timespec{ts, ts}, 0)
	}
	return unix.UtimesNanoAt(at, base, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
}

// cleanName makes an entry's name relative to the layer's root.
func cleanName(name string) (string, error) {
	if strings.ContainsRune(name, 0) {
		return "", errors.New("a name with a NUL byte")
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." {
			return "", errors.New(`a name with ".." could lead out of the image; refused`)
		}
	}
	return path.Clean(strings.TrimLeft(path.Clean("/"+name), "/")), nil
}
