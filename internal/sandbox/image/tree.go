package image

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"

	"golang.org/x/sys/unix"
)

// tree writes below one directory. Paths of several components are only ever
// resolved by openat2 with the directory as root, so that no symbolic link,
// relative or absolute, leads out; everything else is done in a directory
// already open, on a single component that is never followed.
type tree struct {
	root int
	made func(dir string) // told of directories made without an entry
	// opaque is the attribute of a directory that hides what is below it.
	opaque string
	// Tar streams come sorted, so the last directory is nearly always the next.
	lastDir string
	lastFD  int
}

type kind int

const (
	kindNone kind = iota
	kindDir
	kindWhiteout
	kindOther
)

const pathFlags = unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC

func openTree(dir, opaque string) (*tree, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", dir, err)
	}
	return &tree{root: fd, lastFD: -1, opaque: opaque, made: func(string) {}}, nil
}

func (t *tree) close() {
	t.forget()
	_ = unix.Close(t.root)
}

func (t *tree) forget() {
	if t.lastFD >= 0 {
		_ = unix.Close(t.lastFD)
		t.lastFD = -1
	}
}

func (t *tree) open(name string, flags int) (int, error) {
	for {
		fd, err := unix.Openat2(t.root, name, &unix.OpenHow{
			Flags: uint64(flags), Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
		})
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) {
			continue
		}
		if errors.Is(err, unix.ENOSYS) {
			return -1, errors.New("unpacking images needs Linux 5.6 or newer (openat2)")
		}
		return fd, err
	}
}

// openDir opens a directory by name for its attributes; not a link to one.
func (t *tree) openDir(name string) (int, error) {
	return t.open(name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW)
}

// parent returns the open directory of name, made if need be, and the last
// component. The descriptor belongs to the tree and is good until the next
// call.
func (t *tree) parent(name string) (int, string, error) {
	dir, base := path.Split(name)
	dir = path.Clean(dir)
	if dir == "." {
		return t.root, base, nil
	}
	if t.lastFD >= 0 && t.lastDir == dir {
		return t.lastFD, base, nil
	}
	fd, err := t.open(dir, pathFlags)
	if err != nil {
		if err := t.mkdirs(dir, 0); err != nil {
			return -1, "", fmt.Errorf("make directory %q: %w", dir, err)
		}
		if fd, err = t.open(dir, pathFlags); err != nil {
			return -1, "", fmt.Errorf("open directory %q: %w", dir, err)
		}
	}
	t.forget()
	t.lastDir, t.lastFD = dir, fd
	return fd, base, nil
}

// existingParent is parent without making anything; the caller closes it.
func (t *tree) existingParent(name string) (int, string, error) {
	dir, base := path.Split(name)
	fd, err := t.open(path.Clean(dir), pathFlags)
	return fd, base, err
}

// mkdirs makes the directories of name that are missing, also where a link
// points that leads nowhere yet.
func (t *tree) mkdirs(name string, links int) error {
	if links > 40 {
		return unix.ELOOP
	}
	if name == "." || name == "/" {
		return nil
	}
	fd, err := t.open(name, pathFlags)
	if err == nil {
		return unix.Close(fd)
	}
	up := path.Dir(name)
	if err := t.mkdirs(up, links); err != nil {
		return err
	}
	at, err := t.open(up, pathFlags)
	if err != nil {
		return err
	}
	defer unix.Close(at)
	base := path.Base(name)
	k, err := t.kind(at, base)
	if err != nil {
		return err
	}
	if k == kindOther {
		return t.followLink(at, base, up, links)
	}
	if k == kindWhiteout {
		if err := t.remove(at, base); err != nil {
			return err
		}
	}
	if err := unix.Mkdirat(at, base, 0o700); err != nil {
		return err
	}
	t.made(name)
	if k == kindWhiteout {
		return t.setOpaque(name)
	}
	return nil
}

func (t *tree) followLink(at int, base, up string, links int) error {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(at, base, buf)
	if err != nil || n == 0 {
		return unix.ENOTDIR
	}
	to := string(buf[:n])
	if !path.IsAbs(to) {
		to = path.Join("/", up, to)
	}
	return t.mkdirs(path.Clean("./"+path.Clean(to)), links+1)
}

// place does what makes base in the directory, removing what is there.
func (t *tree) place(at int, base string, do func() error) error {
	err := do()
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	if err := t.remove(at, base); err != nil {
		return err
	}
	return do()
}

func (t *tree) create(at int, base string) (*os.File, error) {
	fd := -1
	err := t.place(at, base, func() (err error) {
		fd, err = unix.Openat(at, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		return err
	})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), base), nil
}

// remove removes base and all below it.
func (t *tree) remove(at int, base string) error {
	t.lastDir = "" // it may have led through what is removed; stays open for at
	err := unix.Unlinkat(at, base, 0)
	if err == nil || !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM) {
		return err
	}
	return os.RemoveAll(path.Join(fdPath(at), base))
}

// setOpaque marks a directory of the tree.
func (t *tree) setOpaque(name string) error {
	fd, err := t.openDir(name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Fsetxattr(fd, t.opaque, []byte("y"), 0); err != nil {
		return fmt.Errorf("mark %q as hiding the layers below (set %s): %w; the image cache must lie on ext4, xfs or btrfs", name, t.opaque, err)
	}
	return nil
}

func (t *tree) kind(at int, base string) (kind, error) {
	var st unix.Stat_t
	err := unix.Fstatat(at, base, &st, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case errors.Is(err, unix.ENOENT):
		return kindNone, nil
	case err != nil:
		return kindNone, err
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return kindDir, nil
	case st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0:
		return kindWhiteout, nil
	}
	return kindOther, nil
}

func fdPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }
