package cost

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"muster.dev/muster/internal/fleet"
)

// FocusVersion is that of the FinOps Open Cost and Usage Specification whose
// columns FocusColumns are.
const FocusVersion = "1.2"

// FocusColumns are the columns of a FOCUS table that apply to Muster, by name;
// see https://focus.finops.org, FOCUS 1.2. Those for commitments, reservations,
// unit prices, regions and invoices are left out, as the specification wants of
// a provider that has none of them.
var FocusColumns = []string{
	"BilledCost", "BillingAccountId", "BillingAccountName", "BillingCurrency", "BillingPeriodEnd", "BillingPeriodStart",
	"ChargeCategory", "ChargeClass", "ChargeDescription", "ChargeFrequency", "ChargePeriodEnd", "ChargePeriodStart",
	"ConsumedQuantity", "ConsumedUnit", "ContractedCost", "EffectiveCost", "InvoiceIssuerName", "ListCost",
	"PricingCategory", "PricingQuantity", "PricingUnit", "ProviderName", "PublisherName",
	"ResourceId", "ResourceName", "ResourceType", "ServiceCategory", "ServiceName", "ServiceSubcategory",
	"SubAccountId", "SubAccountName", "Tags",
}

// Focus writes books as rows of a FOCUS table.
type Focus struct {
	Fleet string // name of the fleet: the billing account
	csv   *csv.Writer
	lines map[Key][]string // of each key the columns that are the same in each hour
}

// NewFocus writes the head of a table.
func NewFocus(w io.Writer, fleetName string) (*Focus, error) {
	f := &Focus{Fleet: fleetName, csv: csv.NewWriter(w), lines: map[Key][]string{}}
	return f, f.csv.Write(FocusColumns)
}

// Close writes what is buffered.
func (f *Focus) Close() error {
	f.csv.Flush()
	return f.csv.Error()
}

const focusTime = "2006-01-02T15:04:05Z"

// columnsOf are the places of columns in FocusColumns.
func columnsOf(names ...string) []int {
	out := make([]int, len(names))
	for i, n := range names {
		out[i] = slices.Index(FocusColumns, n)
	}
	return out
}

var (
	moneyColumns = columnsOf("BilledCost", "ContractedCost", "EffectiveCost", "ListCost")
	hoursColumns = columnsOf("ConsumedQuantity", "PricingQuantity")
	timeColumns  = columnsOf("BillingPeriodStart", "BillingPeriodEnd", "ChargePeriodStart", "ChargePeriodEnd")
)

// Hour writes the rows of one hour, a row a line that cost something or took
// time.
func (f *Focus) Hour(from time.Time, b *Book) error {
	from = from.UTC()
	month := time.Date(from.Year(), from.Month(), 1, 0, 0, 0, 0, time.UTC)
	var times [4]string
	for i, t := range []time.Time{month, month.AddDate(0, 1, 0), from, from.Add(time.Hour)} {
		times[i] = t.Format(focusTime)
	}
	for _, k := range b.keys() {
		s := b.Lines[k]
		if s.Amount == 0 && s.Millis == 0 {
			continue
		}
		line := f.line(k)
		for i, c := range timeColumns {
			line[c] = times[i]
		}
		money, hours := s.Amount.USD(), strconv.FormatFloat(inHours(s.Millis), 'f', 6, 64)
		for _, c := range moneyColumns {
			line[c] = money
		}
		for _, c := range hoursColumns {
			line[c] = hours
		}
		if err := f.csv.Write(line); err != nil {
			return err
		}
	}
	return nil
}

// line is that of a key, with the hour and its sums to be filled in.
func (f *Focus) line(k Key) []string {
	if l := f.lines[k]; l != nil {
		return l
	}
	row := f.constant(k)
	l := make([]string, len(FocusColumns))
	for i, c := range FocusColumns {
		l[i] = row[c]
	}
	f.lines[k] = l
	return l
}

// constant is what does not change of a key's rows, by column; what is not there
// is null.
func (f *Focus) constant(k Key) map[string]string {
	row := map[string]string{
		"BillingAccountId": f.Fleet, "BillingAccountName": f.Fleet, "BillingCurrency": "USD",
		"ChargeCategory": "Usage", "ChargeFrequency": "Usage-Based", "ChargeDescription": describe(k),
		"ConsumedUnit": "Hours", "PricingUnit": "Hours", "PricingCategory": pricing(k.Kind),
		"InvoiceIssuerName": "Muster", "ProviderName": "Muster", "PublisherName": "Muster",
		"ServiceCategory": "Compute", "ServiceName": "Muster agents", "ServiceSubcategory": "Containers",
		"SubAccountId": string(k.Tenant), "SubAccountName": string(k.Tenant), "Tags": tags(k),
	}
	row["ResourceType"], row["ResourceName"] = "Node group", kindName(k.Kind)
	if k.Pool != "" {
		row["ResourceType"], row["ResourceName"] = "Sandbox pool", string(k.Pool)
	}
	row["ResourceId"] = f.Fleet + "/" + row["ResourceName"]
	return row
}

// pricing is the category of the price: that of spot nodes changes by itself,
// and reserved ones are committed to.
func pricing(k fleet.NodeKind) string {
	switch k.Capacity {
	case "spot":
		return "Dynamic"
	case "reserved":
		return "Committed"
	}
	return "Standard"
}

func kindName(k fleet.NodeKind) string {
	switch {
	case k.Group != "":
		return k.Group
	case k.InstanceType != "":
		return k.InstanceType
	}
	return "nodes"
}

func describe(k Key) string {
	switch k.Cause {
	case CauseTask:
		return "Sandboxes with a task of template " + k.Template()
	case CauseWarm:
		return "Sandboxes of template " + k.Template() + " that start or wait"
	case CauseHeadroom:
		return "Room on nodes that no sandbox holds"
	case CauseBoot:
		return "Nodes that boot"
	case CauseDrain:
		return "Room on nodes that take nothing new"
	case CauseSystem:
		return "What nodes keep for themselves"
	case CauseMinimum:
		return "Least bill beyond the life of a node"
	}
	return fmt.Sprintf("Idle: %s", k.Cause)
}

func tags(k Key) string {
	all := map[string]string{"muster/cause": string(k.Cause)}
	for name, v := range k.Labels.Map() {
		all[name] = v
	}
	for name, v := range map[string]string{"muster/template": k.Template(), "muster/group": k.Kind.Group, "muster/instanceType": k.Kind.InstanceType, "muster/capacity": k.Kind.Capacity} {
		if v != "" {
			all[name] = v
		}
	}
	b, err := json.Marshal(all)
	if err != nil { // texts always encode
		return "{}"
	}
	return string(b)
}
