package v1alpha1

import (
	"bytes"
	"encoding/csv"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"muster.dev/muster/internal/fleet"
)

// priceColumns are the columns of a price file in CSV.
var priceColumns = []string{"group", "instanceType", "capacity", "perHour", "currency", "minimumBilling", "validFrom", "validUntil"}

// asField is an error as a problem of the document.
func asField(err error) *fleet.FieldError {
	var f *fleet.FieldError
	if errors.As(err, &f) {
		return f
	}
	return &fleet.FieldError{Field: "document", Wrong: err.Error()}
}

// pricesCSV reads a price list whose first line names the columns.
func pricesCSV(src []byte) ([]Price, error) {
	var ps problems
	if !utf8.Valid(src) {
		ps.addf("document", "UTF-8", "is not UTF-8")
		return nil, ps.err()
	}
	r := csv.NewReader(bytes.NewReader(bytes.TrimPrefix(src, []byte("\ufeff"))))
	r.TrimLeadingSpace, r.Comment, r.ReuseRecord = true, '#', true
	head, err := r.Read()
	if err != nil {
		ps.addf("document", "a first line that names columns of "+strings.Join(priceColumns, ","), "has none")
		return nil, ps.err()
	}
	head = slices.Clone(head)
	for i, c := range head {
		head[i] = strings.TrimSpace(c)
		if !slices.Contains(priceColumns, head[i]) {
			ps.add(&fleet.FieldError{Field: "column " + strconv.Quote(clip(head[i])), Line: 1, Wrong: "is unknown", Right: list(priceColumns)})
		} else if slices.Index(head, head[i]) < i {
			ps.add(&fleet.FieldError{Field: "column " + strconv.Quote(head[i]), Line: 1, Wrong: "is there twice", Right: "each column once"})
		}
	}
	if !slices.Contains(head, "perHour") {
		ps.add(&fleet.FieldError{Field: "column \"perHour\"", Line: 1, Wrong: "is missing", Right: "a column of prices"})
	}
	if len(ps.list) > 0 {
		return nil, ps.err()
	}
	out, lines := priceRows(&ps, r, head)
	validatePrices(&ps, "prices", out)
	if len(ps.list) == 0 && len(out) == 0 {
		ps.addf("prices", "at least one", "there are none")
	}
	for _, f := range ps.list { // prices[3].perHour is in the line of the fourth price
		rest, _ := strings.CutPrefix(f.Field, "prices[")
		index, _, _ := strings.Cut(rest, "]")
		if i, err := strconv.Atoi(index); err == nil && i < len(lines) && f.Line == 0 {
			f.Line = lines[i]
		}
	}
	return out, ps.err()
}

// priceRows reads the rows, and says in which line each is.
func priceRows(ps *problems, r *csv.Reader, head []string) (out []Price, lines []int) {
	for len(out) <= maxPrices {
		row, err := r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			var wrong *csv.ParseError
			f := &fleet.FieldError{Field: "document", Wrong: err.Error()}
			if errors.As(err, &wrong) {
				f.Line, f.Wrong = wrong.Line, wrong.Err.Error()
			}
			ps.add(f)
			break
		}
		line, _ := r.FieldPos(0)
		var p Price
		for i, c := range head {
			p.set(ps, at("prices", len(out)), c, strings.TrimSpace(row[i]))
		}
		out, lines = append(out, p), append(lines, line)
	}
	return out, lines
}

// set fills in one column.
func (p *Price) set(ps *problems, field, column, v string) {
	switch column {
	case "group":
		p.Group = v
	case "instanceType":
		p.InstanceType = v
	case "capacity":
		p.Capacity = v
	case "currency":
		p.Currency = v
	case "minimumBilling":
		p.MinimumBilling = v
	case "validFrom":
		p.ValidFrom = v
	case "validUntil":
		p.ValidUntil = v
	case "perHour":
		if v == "" {
			return
		}
		x, err := strconv.ParseFloat(v, 64)
		if err != nil {
			ps.addf(sub(field, "perHour"), "a number of US dollars", "%q is none", clip(v))
		}
		p.PerHour = &x
	}
}
