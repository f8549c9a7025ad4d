package v1alpha1

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/danielgtaylor/huma/v2"
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
