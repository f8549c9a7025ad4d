package oci

// Image is an unpacked image.
type Image struct {
	Digest           string
	Lower            []string // read-only directories, topmost first
	Env              []string
	User, WorkingDir string
}
