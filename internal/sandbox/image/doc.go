// Package image turns an image reference into directories that can be laid
// below an overlay file system. A reference is the absolute path of an
// unpacked root file system, of an OCI layout directory, of a docker-save or
// OCI tarball (any of them gzipped if you like), or a registry reference.
// "#name" after the path of a layout or tarball picks one of several images.
//
// Below the cache's directory:
//
//	l/<name>       an unpacked layer; the name is a digest of the layer's
//	               diff id, the ownership shift and the kind of whiteouts
//	m/<name>.json  what is known of the layer; written before the layer
//	r/<hash>.json  what a reference last resolved to
//	k/<name>.lock  held while a layer is unpacked, over processes
//	t/…            unfinished work, each locked by its process; what nobody
//	               locks is discarded on Open
//
// A layer is unpacked once, checked against its diff id, flushed to disk and
// renamed into place, so that a layer that exists is whole. Names are short
// since the kernel bounds the mount options of an overlay to a page.
//
// Tar entries come from strangers. Every path is resolved by the kernel with
// the layer's directory as its root (openat2, RESOLVE_IN_ROOT), names with
// ".." are refused, devices are left out, extended attributes other than
// user.* are dropped (file capabilities and overlayfs's own among them), and
// bytes and entries are bounded. Ownership is shifted by Options.UIDOffset;
// where it is not shifted, set-user-id and set-group-id bits are removed.
//
// Whiteouts become character devices 0/0. A directory that hides what is
// below it carries trusted.overlay.opaque, or user.overlay.opaque where the
// process may not set the former (rootless); Image.UserXattr then says that
// the overlay must be mounted with -o userxattr (Linux 5.11 or newer).
//
// The package belongs to the family of sandbox adapters. It imports package
// fleet and go-containerregistry.
package image
