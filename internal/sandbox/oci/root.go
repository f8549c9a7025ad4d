package oci

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"muster.dev/muster/internal/fleet"
)

// A root is the read-only directory that becomes, or is laid over, the root
// file system of sandboxes: mount points, and the part of /etc that must not
// be the host's own. Sandboxes of the same kind share one, read-only.

// hostEtc is what of the host's /etc is copied for the image "host": what
// programs below /usr need to work and that tells nothing about the machine's
// users. Patterns of filepath.Match, relative to /etc; a directory with all
// that is in it. Files that not everybody may read are left out.
var hostEtc = []string{
	"alternatives", "ca-certificates*", "crypto-policies", "debian_version", "ethertypes",
	"fonts", "gai.conf", "host.conf", "inputrc", "java*", "ld.so.*", "localtime",
	"locale.alias", "locale.gen", "locale.conf", "lsb-release", "magic*", "maven", "mime.types",
	"nodejs", "os-release", "perl", "pki/ca-trust", "pki/java", "pki/tls/cert.pem",
	"pki/tls/certs", "pki/tls/openssl.cnf", "profile", "profile.d", "protocols", "python3*", "redhat-release", "rpc",
	"services", "ssl/cert.pem", "ssl/certs", "ssl/openssl.cnf", "terminfo",
	"timezone", "xml", "bash.bashrc",
}

// points are the directories every root has for mounts.
var points = []string{
	"dev", "etc", "home/agent", "proc", "run/muster", "sys", "tmp", "var/tmp", "workspace",
}

const (
	passwdRoot  = "root:x:0:0:root:/:/usr/sbin/nologin\n"
	passwdAgent = "agent:x:1000:1000:agent:/home/agent:/bin/bash\n"
	passwdNo    = "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
	groupRoot   = "root:x:0:\n"
	groupTTY    = "tty:x:5:\n"
	groupAgent  = "agent:x:1000:\n"
	groupNo     = "nogroup:x:65534:\n"
)

// roots builds roots and keeps them.
type roots struct {
	dir string
	mu  sync.Mutex
}

// rootKind says which root: everything that shapes one.
type rootKind struct {
	host   bool
	open   bool     // the host's resolver
	image  string   // digest of an image whose passwd is extended
	lower  []string // its layers
	mounts []fleet.Mount
}

// find returns the directory of the root, building it if needed.
func (r *roots) find(k rootKind) (string, error) {
	key := sha256.New()
	_, _ = fmt.Fprintf(key, "1 %v %v %q %v", k.host, k.open, k.image, k.mounts)
	for _, name := range []string{"ld.so.cache", "resolv.conf", "ssl/certs", "localtime", "alternatives"} {
		if st, err := os.Stat(filepath.Join("/etc", name)); err == nil {
			_, _ = fmt.Fprintf(key, " %s %d", name, st.ModTime().UnixNano())
		}
	}
	dir := filepath.Join(r.dir, hex.EncodeToString(key.Sum(nil))[:20])
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, err := os.Stat(dir); err == nil {
		return dir, os.Chtimes(dir, time.Time{}, time.Now()) // still in use
	}
	tmp, err := os.MkdirTemp(r.dir, "making-")
	if err != nil {
		return "", fmt.Errorf("make root: %w", err)
	}
	defer os.RemoveAll(tmp)
	if err := k.build(tmp); err != nil {
		return "", fmt.Errorf("make root: %w", err)
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return "", fmt.Errorf("make root: %w", err)
	}
	if err := os.Rename(tmp, dir); err != nil {
		return "", fmt.Errorf("make root: %w", err)
	}
	return dir, nil
}

func (k rootKind) build(dir string) error {
	for _, p := range points {
		if err := os.MkdirAll(filepath.Join(dir, p), 0o755); err != nil {
			return err
		}
	}
	files := map[string]string{
		"etc/hosts": "", "etc/hostname": "", // bound over
		"etc/passwd":      k.accounts("etc/passwd", passwdRoot, passwdAgent, passwdNo),
		"etc/group":       k.accounts("etc/group", groupRoot, groupTTY, groupAgent, groupNo),
		"etc/resolv.conf": k.resolver(),
	}
	if k.host {
		files["etc/nsswitch.conf"] = "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n" +
			"networks: files\nprotocols: files\nservices: files\nethers: files\nrpc: files\n"
		files["etc/gitconfig"] = "[safe]\n\tdirectory = *\n"
		files["etc/shells"] = "/bin/sh\n/bin/bash\n"
		if err := hostLinks(dir); err != nil {
			return err
		}
		if err := copyEtc(dir); err != nil {
			return err
		}
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return k.mountPoints(dir)
}

// resolver is the resolv.conf: without a network there is nobody to ask.
func (k rootKind) resolver() string {
	if k.open {
		if b, err := os.ReadFile("/etc/resolv.conf"); err == nil {
			return string(b)
		}
	}
	return "# no name server: names are resolved by the proxy, if there is one\n"
}

// accounts extends the image's own file by those of our lines whose number it
// does not have.
func (k rootKind) accounts(name string, lines ...string) string {
	var text string
	for _, layer := range k.lower {
		if b, err := os.ReadFile(filepath.Join(layer, name)); err == nil {
			text = string(b)
			break
		}
	}
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	taken := map[string]bool{}
	for l := range strings.Lines(text) {
		if f := strings.Split(strings.TrimSpace(l), ":"); len(f) > 2 {
			taken[f[0]], taken["#"+f[2]] = true, true
		}
	}
	for _, l := range lines {
		f := strings.Split(strings.TrimSpace(l), ":")
		if !taken[f[0]] && !taken["#"+f[2]] {
			text += l
		}
	}
	return text
}

// hostLinks recreates /bin, /lib and the like where the host has links for
// them; real directories get a mount point (see hostTrees).
func hostLinks(dir string) error {
	if err := os.Mkdir(filepath.Join(dir, "usr"), 0o755); err != nil {
		return err
	}
	for _, name := range hostTop() {
		at := filepath.Join(dir, name)
		to, err := os.Readlink("/" + name)
		if err == nil {
			err = os.Symlink(to, at)
		} else {
			err = os.Mkdir(at, 0o755)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// hostTop names what the host has beside /usr for programs.
func hostTop() []string {
	var out []string
	for _, name := range []string{"bin", "sbin", "lib", "lib32", "lib64", "libx32"} {
		if _, err := os.Lstat("/" + name); err == nil {
			out = append(out, name)
		}
	}
	return out
}

// hostTrees are the host directories bound for the image "host".
func hostTrees() []string {
	out := []string{"/usr"}
	for _, name := range hostTop() {
		if st, err := os.Lstat("/" + name); err == nil && st.IsDir() {
			out = append(out, "/"+name)
		}
	}
	return out
}

func copyEtc(dir string) error {
	for _, pattern := range hostEtc {
		found, err := filepath.Glob(filepath.Join("/etc", pattern))
		if err != nil {
			return err
		}
		for _, from := range found {
			if err := copyTree(filepath.Join(dir, from), from); err != nil {
				return err
			}
		}
	}
	return nil
}

// copyTree copies what everybody may read; links are kept as they are.
func copyTree(to, from string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		at := filepath.Join(to, rel)
		switch e.Type() {
		case fs.ModeDir:
			return os.MkdirAll(at, 0o755)
		case fs.ModeSymlink:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			return os.Symlink(target, at)
		case 0:
			return copyFile(at, path)
		}
		return nil
	})
}

func copyFile(to, from string) error {
	st, err := os.Stat(from)
	if err != nil || st.Mode()&0o004 == 0 {
		return err
	}
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, st.Mode().Perm()&0o755|0o644)
}

// mountPoints makes the targets of the template's mounts where they lie in the
// root itself.
func (k rootKind) mountPoints(dir string) error {
	for _, m := range k.mounts {
		at := filepath.Join(dir, m.Target)
		if _, err := os.Stat(at); err == nil {
			continue
		}
		st, err := os.Stat(m.Source)
		if err != nil {
			return fmt.Errorf("mount %s: %w", m.Source, err)
		}
		if st.IsDir() {
			if err := os.MkdirAll(at, 0o755); err != nil {
				return err
			}
			continue
		}
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(at, nil, 0o644); err != nil {
			return err
		}
	}
	return nil
}
