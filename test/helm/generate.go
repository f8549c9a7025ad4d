package helm

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"

	"sigs.k8s.io/yaml"
)

func newReader(b []byte) *bufio.Reader { return bufio.NewReader(bytes.NewReader(b)) }

// The parts of the tree that are made from others, and what they are made of.
const (
	chartDir   = "deploy/helm/muster"
	crds       = "deploy/crds"
	dashboards = "deploy/grafana"
	alerts     = "deploy/prometheus"
	manifest   = "deploy/manifests/muster.yaml"
	plain      = "deploy/manifests/values.yaml"
)

const heading = `# Made from deploy/helm/muster by make manifests; do not edit. The values are
# those of values.yaml beside this file. Set your image before applying it:
#
#   sed 's#image: "muster:.*"#image: "REGISTRY/muster:TAG"#; s#value: "muster:.*"#value: "REGISTRY/muster:TAG"#' muster.yaml | kubectl apply --server-side -f -
`

// Generated is every file that is made from others, by its path below root,
// the top of the tree. Nothing is written.
func Generated(root string) (map[string][]byte, error) {
	out := map[string][]byte{}
	if err := copies(out, root, filepath.Join(crds, "*.yaml"), filepath.Join(chartDir, "crds"), ""); err != nil {
		return nil, err
	}
	if err := copies(out, root, filepath.Join(dashboards, "*.json"), filepath.Join(chartDir, "files", "dashboards"), "muster-"); err != nil {
		return nil, err
	}
	if err := copies(out, root, filepath.Join(alerts, "*.yaml"), filepath.Join(chartDir, "files", "rules"), ""); err != nil {
		return nil, err
	}
	b, err := manifests(root)
	if err != nil {
		return nil, err
	}
	out[manifest] = b
	return out, nil
}

// copies adds the files that match pattern as files of dir.
func copies(out map[string][]byte, root, pattern, dir, prefix string) error {
	names, err := filepath.Glob(filepath.Join(root, pattern))
	if err != nil {
		return fmt.Errorf("find %s: %w", pattern, err)
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			return fmt.Errorf("read what is copied into the chart: %w", err)
		}
		out[filepath.Join(dir, prefix+filepath.Base(name))] = b
	}
	return nil
}

var (
	runs = regexp.MustCompile(`\n{2,}`)
	// Labels of helm would be untrue without it.
	helms = regexp.MustCompile(`(?m)^ +(helm\.sh/chart|app\.kubernetes\.io/managed-by): .*\n`)
)

// manifests is the chart without helm: the namespace, the resource definitions
// and the objects, with the values that stand beside it.
func manifests(root string) ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(root, plain))
	if err != nil {
		return nil, fmt.Errorf("read the values of the plain manifests: %w", err)
	}
	values := map[string]any{}
	if err := yaml.UnmarshalStrict(b, &values); err != nil {
		return nil, fmt.Errorf("%s: %w", plain, err)
	}
	c, err := Load(filepath.Join(root, chartDir))
	if err != nil {
		return nil, err
	}
	const namespace = "muster"
	r, err := Render(c, Release{Name: "muster", Namespace: namespace, Values: values})
	if err != nil {
		return nil, err
	}
	var w bytes.Buffer
	w.WriteString(heading)
	fmt.Fprintf(&w, "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: %s\n  labels:\n    pod-security.kubernetes.io/enforce: restricted\n", namespace)
	names, err := filepath.Glob(filepath.Join(root, crds, "*.yaml"))
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", crds, err)
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("read a resource definition: %w", err)
		}
		w.WriteString("---\n")
		w.Write(bytes.TrimPrefix(bytes.TrimSpace(b), []byte("---\n")))
		w.WriteByte('\n')
	}
	for _, o := range r.Objects {
		w.WriteString("---\n")
		doc := helms.ReplaceAll(bytes.TrimPrefix(o.YAML, []byte("---\n")), nil)
		w.Write(runs.ReplaceAll(doc, []byte("\n")))
		w.WriteByte('\n')
	}
	return w.Bytes(), nil
}
