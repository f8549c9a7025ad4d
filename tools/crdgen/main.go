package main

import (
	"errors"
	"fmt"
	"os"
)

//go:generate sh -c "go run . > ../../deploy/crds/muster.dev_fleets.yaml"

func main() {
	out, err := generate("api/v1alpha1")
	if errors.Is(err, os.ErrNotExist) { // go generate runs here
		out, err = generate("../../api/v1alpha1")
	}
	if err == nil {
		_, err = os.Stdout.Write(out)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "crdgen:", err)
		os.Exit(1)
	}
}
