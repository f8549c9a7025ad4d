package v1alpha1

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Quantity is an amount as in Kubernetes: 2, 0.5, 500m, 2Gi, 1500M. It may be
// written as a number or a string.
type Quantity string

// UnmarshalJSON accepts a string or a number.
func (q *Quantity) UnmarshalJSON(b []byte) error {
	b = bytes.TrimSpace(b)
	if len(b) > 0 && b[0] == '"' {
		var s string
		if err := json.Unmarshal(b, &s); err != nil {
			return err
		}
		*q = Quantity(s)
		return nil
	}
	var n json.Number
	if err := json.Unmarshal(b, &n); err != nil {
		return fmt.Errorf("a quantity is a number or a string such as 500m or 2Gi, not %s", b)
	}
	*q = Quantity(n.String())
	return nil
}

// Schema describes a Quantity in the OpenAPI document.
func (Quantity) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{
		OneOf:       []*huma.Schema{{Type: huma.TypeString}, {Type: huma.TypeNumber}},
		Description: "an amount as in Kubernetes: 2, 0.5, 500m, 2Gi",
		Examples:    []any{"2Gi"},
	}
}

var binaryHint = strings.NewReplacer("KB", "K", "MB", "M", "GB", "G", "TB", "T", "k", "Ki", "KiB", "Ki", "MiB", "Mi", "GiB", "Gi", "TiB", "Ti", "gb", "Gi", "mb", "Mi", "g", "Gi")

// Beyond these the library's conversions overflow, in thousandths at least.
var (
	most  = *resource.NewQuantity(1<<50, resource.BinarySI)
	least = *resource.NewQuantity(-1<<50, resource.BinarySI)

	hugeExponent = regexp.MustCompile(`[eE][+-]?\d{3,}`)
)

func (q Quantity) parse() (resource.Quantity, error) {
	if len(q) > 64 {
		return resource.Quantity{}, fmt.Errorf("%s is too long", clip(string(q)))
	}
	// An exponent of a billion would be worked out digit by digit.
	if hugeExponent.MatchString(string(q)) {
		return resource.Quantity{}, fmt.Errorf("%s is too large or too small", clip(string(q)))
	}
	v, err := resource.ParseQuantity(string(q))
	if err != nil {
		if h := binaryHint.Replace(string(q)); h != string(q) {
			if _, err := resource.ParseQuantity(h); err == nil {
				return resource.Quantity{}, fmt.Errorf("%q is not an amount (did you mean %s?)", string(q), h)
			}
		}
		return resource.Quantity{}, fmt.Errorf("%q is not an amount", clip(string(q)))
	}
	if v.Cmp(most) > 0 || v.Cmp(least) < 0 {
		return resource.Quantity{}, fmt.Errorf("%s is too large", q)
	}
	return v, nil
}

// Bytes is the amount in whole bytes, rounded up.
func (q Quantity) Bytes() (int64, error) {
	v, err := q.parse()
	if err != nil {
		return 0, err
	}
	return v.Value(), nil
}

// Milli is the amount in thousandths, rounded up.
func (q Quantity) Milli() (int64, error) {
	v, err := q.parse()
	if err != nil {
		return 0, err
	}
	return v.MilliValue(), nil
}

// BytesQuantity writes a size in bytes: 2Gi.
func BytesQuantity(n int64) Quantity {
	return Quantity(resource.NewQuantity(n, resource.BinarySI).String())
}

// MilliQuantity writes thousandths: 1500m, 2.
func MilliQuantity(n int64) Quantity {
	return Quantity(resource.NewMilliQuantity(n, resource.DecimalSI).String())
}
