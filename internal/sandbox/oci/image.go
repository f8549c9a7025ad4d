package oci

import "muster.dev/muster/internal/sandbox/image"

// Image is an unpacked image.
type Image = image.Image
