package helm

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// Release is what a chart is rendered for.
type Release struct {
	Name, Namespace string
	Values          map[string]any
}

// Object is one object of a rendered chart.
type Object struct {
	unstructured.Unstructured
	Template string // the file it comes from, for messages
	YAML     []byte
}

// Rendered is a chart made into objects, in the order of installation.
type Rendered struct {
	Objects []Object
	Notes   string
}

// Load reads a chart's directory.
func Load(dir string) (*chart.Chart, error) {
	c, err := loader.LoadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("load the chart: %w", err)
	}
	return c, nil
}

// Render checks the values against the chart's schema and makes the objects.
// It asks no cluster: a chart's lookup finds nothing.
func Render(c *chart.Chart, r Release) (*Rendered, error) {
	values, err := util.ToRenderValues(c, r.Values, common.ReleaseOptions{
		Name: r.Name, Namespace: r.Namespace, Revision: 1, IsInstall: true,
	}, common.DefaultCapabilities)
	if err != nil {
		return nil, err // helm's own words name the value
	}
	files, err := engine.Render(c, values)
	if err != nil {
		return nil, err
	}
	out := &Rendered{}
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if path.Base(name) == "NOTES.txt" {
			out.Notes = files[name]
			continue
		}
		objects, err := Parse(name, []byte(files[name]))
		if err != nil {
			return nil, err
		}
		out.Objects = append(out.Objects, objects...)
	}
	slices.SortStableFunc(out.Objects, func(a, b Object) int { return rank(a.GetKind()) - rank(b.GetKind()) })
	return out, nil
}

// order is that of installation: what others refer to comes first.
var order = []string{
	"Namespace", "CustomResourceDefinition", "PriorityClass", "NetworkPolicy", "PodDisruptionBudget", "ServiceAccount", "Secret",
	"ConfigMap", "PersistentVolumeClaim", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding", "Service", "Deployment",
}

func rank(kind string) int {
	if i := slices.Index(order, kind); i >= 0 {
		return i
	}
	return len(order)
}

// Parse splits a file of several documents into objects; empty ones are left
// out, and one without apiVersion, kind or name is an error.
func Parse(file string, content []byte) ([]Object, error) {
	var out []Object
	docs := yaml.NewYAMLReader(newReader(content))
	for {
		doc, err := docs.Read()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		if blank(doc) {
			continue
		}
		o := Object{Template: file, YAML: bytes.TrimSpace(doc)}
		if err := yaml.UnmarshalStrict(doc, &o.Object); err != nil {
			return nil, fmt.Errorf("%s: %w\n%s", file, err, doc)
		}
		if o.GetAPIVersion() == "" || o.GetKind() == "" || o.GetName() == "" {
			return nil, fmt.Errorf("%s: a document is no object:\n%s", file, doc)
		}
		out = append(out, o)
	}
}

// blank reports whether a document holds nothing but comments.
func blank(doc []byte) bool {
	for line := range strings.Lines(string(doc)) {
		if l := strings.TrimSpace(line); l != "" && l != "---" && !strings.HasPrefix(l, "#") {
			return false
		}
	}
	return true
}
