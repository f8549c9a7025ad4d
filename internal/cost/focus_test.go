package cost

import (
	"encoding/csv"
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"muster.dev/muster/internal/fleet"
)

// focusColumn is what FOCUS 1.2 says of a column.
type focusColumn struct {
	kind    string // string, decimal, time, json
	level   string // mandatory, conditional, recommended
	null    bool
	allowed []string
}

// focusSpec is FOCUS 1.2's column list, with the feature level, type and
// nullability that specification/columns/*.md give at tag v1.2 of
// github.com/FinOps-Open-Cost-and-Usage-Spec/FOCUS_Spec, and the values allowed
// where a row of usage can have several.
var focusSpec = map[string]focusColumn{
	"AvailabilityZone":                   {"string", "recommended", true, nil},
	"BilledCost":                         {"decimal", "mandatory", false, nil},
	"BillingAccountId":                   {"string", "mandatory", false, nil},
	"BillingAccountName":                 {"string", "mandatory", true, nil},
	"BillingAccountType":                 {"string", "conditional", false, nil},
	"BillingCurrency":                    {"string", "mandatory", false, []string{"USD"}},
	"BillingPeriodEnd":                   {"time", "mandatory", false, nil},
	"BillingPeriodStart":                 {"time", "mandatory", false, nil},
	"CapacityReservationId":              {"string", "conditional", true, nil},
	"CapacityReservationStatus":          {"string", "conditional", true, nil},
	"ChargeCategory":                     {"string", "mandatory", false, []string{"Usage", "Purchase", "Tax", "Credit", "Adjustment"}},
	"ChargeClass":                        {"string", "mandatory", true, []string{"Correction"}},
	"ChargeDescription":                  {"string", "mandatory", true, nil},
	"ChargeFrequency":                    {"string", "recommended", false, []string{"One-Time", "Recurring", "Usage-Based"}},
	"ChargePeriodEnd":                    {"time", "mandatory", false, nil},
	"ChargePeriodStart":                  {"time", "mandatory", false, nil},
	"CommitmentDiscountCategory":         {"string", "conditional", true, nil},
	"CommitmentDiscountId":               {"string", "conditional", true, nil},
	"CommitmentDiscountName":             {"string", "conditional", true, nil},
	"CommitmentDiscountQuantity":         {"decimal", "conditional", true, nil},
	"CommitmentDiscountStatus":           {"string", "conditional", true, nil},
	"CommitmentDiscountType":             {"string", "conditional", true, nil},
	"CommitmentDiscountUnit":             {"string", "conditional", true, nil},
	"ConsumedQuantity":                   {"decimal", "conditional", true, nil},
	"ConsumedUnit":                       {"string", "conditional", true, nil},
	"ContractedCost":                     {"decimal", "mandatory", false, nil},
	"ContractedUnitPrice":                {"decimal", "conditional", true, nil},
	"EffectiveCost":                      {"decimal", "mandatory", false, nil},
	"InvoiceId":                          {"string", "recommended", true, nil},
	"InvoiceIssuerName":                  {"string", "mandatory", false, nil},
	"ListCost":                           {"decimal", "mandatory", false, nil},
	"ListUnitPrice":                      {"decimal", "conditional", true, nil},
	"PricingCategory":                    {"string", "conditional", true, []string{"Standard", "Committed", "Dynamic", "Other"}},
	"PricingCurrency":                    {"string", "conditional", false, nil},
	"PricingCurrencyContractedUnitPrice": {"decimal", "conditional", true, nil},
	"PricingCurrencyEffectiveCost":       {"decimal", "conditional", true, nil},
	"PricingCurrencyListUnitPrice":       {"decimal", "conditional", true, nil},
	"PricingQuantity":                    {"decimal", "mandatory", true, nil},
	"PricingUnit":                        {"string", "mandatory", true, nil},
	"ProviderName":                       {"string", "mandatory", false, nil},
	"PublisherName":                      {"string", "mandatory", false, nil},
	"RegionId":                           {"string", "conditional", true, nil},
	"RegionName":                         {"string", "conditional", true, nil},
	"ResourceId":                         {"string", "conditional", true, nil},
	"ResourceName":                       {"string", "conditional", true, nil},
	"ResourceType":                       {"string", "conditional", true, nil},
	"ServiceCategory":                    {"string", "mandatory", false, []string{"Compute"}},
	"ServiceName":                        {"string", "mandatory", false, nil},
	"ServiceSubcategory":                 {"string", "recommended", false, []string{"Containers", "End User Computing", "Quantum Compute", "Serverless Compute", "Virtual Machines", "Other (Compute)"}},
	"SkuId":                              {"string", "conditional", true, nil},
	"SkuMeter":                           {"string", "conditional", true, nil},
	"SkuPriceDetails":                    {"json", "conditional", true, nil},
	"SkuPriceId":                         {"string", "conditional", true, nil},
	"SubAccountId":                       {"string", "conditional", true, nil},
	"SubAccountName":                     {"string", "conditional", true, nil},
	"SubAccountType":                     {"string", "conditional", true, nil},
	"Tags":                               {"json", "conditional", true, nil},
}

// The specification's attributes NumericFormat and DateTimeFormat.
var (
	focusNumber = regexp.MustCompile(`^-?[0-9]+(\.[0-9]+)?(E-?[0-9]+)?$`)
	focusMoment = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$`)
)

func (c focusColumn) check(v string) bool {
	switch {
	case v == "":
		return c.null
	case c.allowed != nil && !slices.Contains(c.allowed, v):
		return false
	case c.kind == "decimal":
		return focusNumber.MatchString(v)
	case c.kind == "time":
		return focusMoment.MatchString(v)
	case c.kind == "json": // KeyValueFormat: one object of plain values
		var m map[string]string
		return json.Unmarshal([]byte(v), &m) == nil
	}
	return true
}

func TestFocus(t *testing.T) {
	b := NewBook()
	labels := LabelsOf(map[string]string{"team": "a, \"b\"\n", "project": "web"}, []string{"team", "project"})
	kinds := []fleet.NodeKind{{}, {Group: "g", InstanceType: "m7i", Capacity: "spot"}, {InstanceType: "m7i", Capacity: "reserved"}}
	var sum Micro
	for i, c := range append(idleCauses, CauseTask) {
		k := Key{Cause: c, Kind: kinds[i%3]}
		if c == CauseTask {
			k.Tenant, k.Labels, k.Pool = "pay", labels, "default~x"
		}
		b.Charge(k, Entry{From: epoch, Node: "n", Cause: c, Amount: Micro(i)*1e6 + 1})
		b.Spend(k, time.Duration(i)*time.Minute)
		sum += Micro(i)*1e6 + 1
	}
	b.Settle(Key{Cause: CauseTask, Pool: "free"}, true) // cost nothing: no row
	var out strings.Builder
	f, err := NewFocus(&out, "team-a/agents")
	if err == nil {
		err = f.Hour(epoch, b)
	}
	if err == nil {
		err = f.Close()
	}
	rows, err2 := csv.NewReader(strings.NewReader(out.String())).ReadAll()
	if err != nil || err2 != nil || len(rows) != 1+len(idleCauses)+1 {
		t.Fatalf("%v, %v, %d rows", err, err2, len(rows))
	}
	head := rows[0]
	for name, c := range focusSpec {
		if c.level == "mandatory" && !slices.Contains(head, name) {
			t.Errorf("the mandatory column %s is missing", name)
		}
	}
	for i, name := range head {
		if _, known := focusSpec[name]; !known || slices.Index(head, name) < i {
			t.Errorf("column %s is unknown, or there twice", name)
		}
	}
	if len(focusSpec) != 57 {
		t.Errorf("FOCUS 1.2 has 57 columns, not %d", len(focusSpec))
	}
	var billed float64
	for _, row := range rows[1:] {
		v := map[string]string{}
		for i, name := range head {
			v[name] = row[i]
			if !focusSpec[name].check(row[i]) {
				t.Errorf("%s is %q", name, row[i])
			}
		}
		checkFocusRow(t, v)
		var x float64
		if err := json.Unmarshal([]byte(v["BilledCost"]), &x); err != nil {
			t.Error(err)
		}
		billed += x
	}
	if got := Micro(billed*1e6 + 0.5); got != sum {
		t.Errorf("billed %d, charged %d", got, sum)
	}
}

// checkFocusRow checks the rules between columns, for a row of usage.
func checkFocusRow(t *testing.T, v map[string]string) {
	t.Helper()
	together := func(names ...string) {
		for _, n := range names[1:] {
			if (v[n] == "") != (v[names[0]] == "") {
				t.Errorf("of %v one is null and one is not: %v", names, v)
			}
		}
	}
	together("ConsumedQuantity", "ConsumedUnit")
	together("PricingQuantity", "PricingUnit")
	together("ResourceId", "ResourceName", "ResourceType")
	together("SubAccountId", "SubAccountName")
	if v["ChargeCategory"] == "Usage" && (v["PricingCategory"] == "" || v["PricingQuantity"] == "" || v["ConsumedQuantity"] == "") {
		t.Errorf("usage without a quantity or a category of its price: %v", v)
	}
	if v["ChargePeriodStart"] >= v["ChargePeriodEnd"] || v["ChargePeriodStart"] < v["BillingPeriodStart"] || v["ChargePeriodEnd"] > v["BillingPeriodEnd"] {
		t.Errorf("periods: %v", v)
	}
	for _, n := range []string{"ContractedCost", "EffectiveCost", "ListCost"} { // no discount is known
		if v[n] != v["BilledCost"] {
			t.Errorf("%s is %s beside %s billed", n, v[n], v["BilledCost"])
		}
	}
}
