package oci

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A volume is the one size-bounded place of a sandbox that can be written: a
// sparse file with an ext4 in it (no journal: it does not outlive a crash) on
// a loop device. Where there are none, a tmpfs, which counts against memory.
const (
	volumeLoop  = "loop"
	volumeTmpfs = "tmpfs"
)

// folders are the directories of a volume and where they appear inside.
var folders = []struct {
	name, target string
	mode         uint32
}{
	{"workspace", "/workspace", 0o755},
	{"agent", "/home/agent", 0o750},
	{"tmp", "/tmp", 0o1777},
	{"vartmp", "/var/tmp", 0o1777},
}

// smallestVolume is what an ext4 needs to be of any use.
const smallestVolume = 1 << 20

// volumes makes volumes, by copying an empty one of the size: making the file
// system takes 15 ms, copying the few blocks that are not zero 1 ms.
type volumes struct {
	dir string // where templates are kept

	mu    sync.Mutex
	ready map[int64]*sync.Once
	errs  map[int64]error
	kind  string
	why   string // why kind is tmpfs
}

func newVolumes(dir string) *volumes {
	v := &volumes{dir: dir, ready: map[int64]*sync.Once{}, errs: map[int64]error{}, kind: volumeLoop}
	if err := tryLoop(dir); err != nil {
		v.kind, v.why = volumeTmpfs, err.Error()
	}
	return v
}

// tryLoop proves that volumes on loop devices work here.
func tryLoop(dir string) error {
	v := volumes{dir: dir, ready: map[int64]*sync.Once{}, errs: map[int64]error{}}
	file, err := os.MkdirTemp(dir, "try-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(file)
	path := filepath.Join(file, "volume")
	if err := v.create(path, 4<<20); err != nil {
		return err
	}
	return privately(func() error {
		at := filepath.Join(file, "at")
		if err := os.Mkdir(at, 0o700); err != nil {
			return err
		}
		return mountLoop(path, at, dir)
	})
}

// create makes an empty volume of size bytes at path.
func (v *volumes) create(path string, size int64) error {
	size = max(size, smallestVolume) &^ (loopBlock - 1)
	template, err := v.template(size)
	if err != nil {
		return err
	}
	if err := copySparse(path, template); err != nil {
		return fmt.Errorf("make volume: %w", err)
	}
	return nil
}

// template returns an empty file system of the size, made once.
func (v *volumes) template(size int64) (string, error) {
	path := filepath.Join(v.dir, fmt.Sprintf("empty2-%d.ext4", size))
	v.mu.Lock()
	once := v.ready[size]
	if once == nil {
		once = &sync.Once{}
		v.ready[size] = once
	}
	v.mu.Unlock()
	once.Do(func() {
		if os.Chtimes(path, time.Time{}, time.Now()) == nil {
			return // it is there
		}
		err := makeTemplate(path, size)
		v.mu.Lock()
		v.errs[size] = err
		if err != nil {
			delete(v.ready, size) // try again next time
		}
		v.mu.Unlock()
	})
	v.mu.Lock()
	defer v.mu.Unlock()
	return path, v.errs[size]
}

func makeTemplate(path string, size int64) error {
	f, err := os.CreateTemp(filepath.Dir(path), "making-")
	if err != nil {
		return fmt.Errorf("make volume template: %w", err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		return fmt.Errorf("make volume template: %w", err)
	}
	mkfs, err := lookProgram("mkfs.ext4")
	if err != nil {
		return fmt.Errorf("make volume template: %w (install e2fsprogs)", err)
	}
	tree := f.Name() + ".d"
	defer os.RemoveAll(tree)
	if err := furnish(tree); err != nil {
		return fmt.Errorf("make volume template: %w", err)
	}
	out, err := exec.Command(mkfs, "-q", "-F", "-m", "0", "-b", strconv.Itoa(loopBlock),
		"-O", "^has_journal,^resize_inode", "-E", "lazy_itable_init=1,nodiscard,root_owner=0:0",
		"-d", tree, f.Name()).CombinedOutput()
	if err != nil {
		return fmt.Errorf("make volume template: %w: %s", err, out)
	}
	return os.Rename(f.Name(), path)
}

// lookProgram finds system programs also where PATH is that of a user.
func lookProgram(name string) (string, error) {
	if p, err := exec.LookPath(name); err == nil {
		return p, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/local/sbin"} {
		if p, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return p, nil
		}
	}
	return "", fmt.Errorf("%s: %w", name, exec.ErrNotFound)
}

// copySparse copies src to a new file, leaving its holes holes.
func copySparse(dst, src string) (err error) {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(dst, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if unix.IoctlFileClone(int(out.Fd()), int(in.Fd())) == nil {
		return nil // shares the blocks, where the file system can
	}
	info, err := in.Stat()
	if err != nil {
		return err
	}
	if err := out.Truncate(info.Size()); err != nil {
		return err
	}
	for at := int64(0); at < info.Size(); {
		begin, err := unix.Seek(int(in.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil // only a hole is left
		}
		if err != nil {
			return err
		}
		end, err := unix.Seek(int(in.Fd()), begin, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		if err := copyRange(out, in, begin, end); err != nil {
			return err
		}
		at = end
	}
	return nil
}

func copyRange(out, in *os.File, begin, end int64) error {
	_, err := io.Copy(io.NewOffsetWriter(out, begin), io.NewSectionReader(in, begin, end-begin))
	return err
}

// mountLoop mounts the volume in the file; call it privately.
func mountLoop(file, at, scratch string) error {
	f, err := os.OpenFile(file, os.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open volume: %w", err)
	}
	defer f.Close()
	dev, err := attachLoop(f, scratch)
	if err != nil {
		return err
	}
	defer dev.Close() // the mount holds it
	const flags = unix.MS_NODEV | unix.MS_NOSUID | unix.MS_NOATIME
	if err := unix.Mount(dev.Name(), at, "ext4", flags, "noinit_itable"); err != nil {
		return fmt.Errorf("mount volume: %w", err)
	}
	return nil
}

// furnish makes dir with the folders of a volume in it.
func furnish(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, f := range folders {
		path := filepath.Join(dir, f.name)
		if err := os.Mkdir(path, 0o700); err != nil {
			return err
		}
		if err := unix.Chmod(path, f.mode); err != nil {
			return err
		}
	}
	return nil
}

// handOver gives the folders of the volume at dir to the agent.
func handOver(dir string, id int) error {
	for _, f := range folders {
		if err := unix.Lchown(filepath.Join(dir, f.name), id, id); err != nil {
			return fmt.Errorf("hand the volume over: %w", err)
		}
	}
	return nil
}

// A volume counts as full when less is free than a program writes at once: a
// write of a megabyte that does not fit fails without taking what is left.
const (
	fullBytes  = 2 << 20
	fullInodes = 8
)

// fill says how full a volume is.
type fill struct {
	used, size int64
	full       bool
}

// filling reads how full the volume is through a file in it.
func filling(f *os.File) (fill, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return fill{}, fmt.Errorf("read volume: %w", err)
	}
	bs := int64(st.Bsize)
	free := int64(st.Bavail) * bs
	size := int64(st.Blocks) * bs
	return fill{
		used: size - int64(st.Bfree)*bs, size: size,
		full: free < min(fullBytes, size/8) || st.Files > 0 && st.Ffree < fullInodes,
	}, nil
}
