package v1alpha1

import (
	"math"
	"strings"
	"testing"
)

func costFleet(cost string) (*Fleet, error) {
	return ParseFleet([]byte("apiVersion: muster.dev/v1alpha1\nkind: Fleet\nmetadata: {name: a}\nspec:\n  templates: [{name: default}]\n  cost: " + cost + "\n"))
}

func TestCostRefused(t *testing.T) {
	for cost, want := range map[string]string{
		"{prices: [{perHour: -0.1}]}":                                                           "spec.cost.prices[0].perHour: -0.1 is",
		"{prices: [{group: a}]}":                                                                "spec.cost.prices[0].perHour: is missing",
		"{prices: [{perHour: 1, currency: EUR}]}":                                               `spec.cost.prices[0].currency: "EUR" is unknown`,
		"{prices: [{perHour: 1, color: red}]}":                                                  "spec.cost.prices[0].color",
		"{prices: [{perHour: 1, capacity: preemptible}]}":                                       `spec.cost.prices[0].capacity: "preemptible" is unknown`,
		"{prices: [{perHour: 1, validFrom: soon}]}":                                             `spec.cost.prices[0].validFrom: "soon" is not a time`,
		"{prices: [{perHour: 1, validFrom: 2026-02-01, validUntil: 2026-01-01}]}":               "spec.cost.prices[0].validUntil: 2026-01-01 is not after it",
		"{prices: [{perHour: 1, validUntil: 2026-02-01}, {perHour: 2, validFrom: 2026-01-01}]}": "spec.cost.prices[1]: is for the same nodes at the same time as spec.cost.prices[0]",
		"{prices: [{group: a, perHour: 1}, {group: a, perHour: 2}]}":                            "spec.cost.prices[1]: is for the same nodes",
		"{prices: [{perHour: 1, minimumBilling: -1m}]}":                                         "spec.cost.prices[0].minimumBilling",
		"{host: {purchaseUSD: 100}, nodeHourUSD: 1}":                                            "spec.cost.host: is there beside nodeHourUSD",
		"{host: {years: 3}}":                                                                    "spec.cost.host: says no price",
		"{host: {purchaseUSD: -1}}":                                                             "spec.cost.host.purchaseUSD",
		"{priceFile: prices.csv}":                                                               "spec.cost.priceFile: \"prices.csv\" is none",
		"{labels: [a, a]}":                                                                      "spec.cost.labels[1]",
		"{nodeHourUSD: -1}":                                                                     "spec.cost.nodeHourUSD",
		"{nodeHourUSD: 2, budget: {perHour: 5}}\n  mode: scale\n  nodes: {provider: kubernetes, min: 3}": "spec.cost.budget.perHour: 5 is less than what the standing minimum",
		"{nodeHourUSD: 2, budget: {perDay: 47}}":                                                         "spec.cost.budget.perDay: 47 is less than what the standing minimum, this machine, costs; want at least 48.00",
		"{nodeHourUSD: 1, budget: {perMonth: 700}}":                                                      "spec.cost.budget.perMonth: 700 is less than",
		"{budget: {perMonth: -1}}":                                                                       "spec.cost.budget.perMonth: -1 is negative",
		"{budget: {perDay: 5, warnAt: [80, 50]}}":                                                        "spec.cost.budget.warnAt[1]: 50 is not above the 80 before it",
		"{budget: {perDay: 5, warnAt: [0]}}":                                                             "spec.cost.budget.warnAt[0]: 0 is not allowed",
		"{budget: {perDay: 5, webhook: \"ftp://x\"}}":                                                    "spec.cost.budget.webhook",
		"{budget: {webhook: \"https://x.test\"}}":                                                        "spec.cost.budget.webhook: is there, and there is no budget",
		"{}\n  tenants: [{name: pay, budget: {perHour: -2}}]":                                            "spec.tenants[0].budget.perHour: -2",
		"{budget: {perDay: 5}}\n  mode: scale\n  queue: {type: redis}":                                   "spec.cost.budget: cannot be kept: with mode: scale others run the workers",
	} {
		if _, err := costFleet(cost); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", cost, err, want)
		}
	}
	for _, cost := range []string{
		"{nodeHourUSD: 2, budget: {perHour: 2, perDay: 48, perMonth: 1488, warnAt: [10, 100, 150], webhook: \"https://x.test/y\"}}\n  tenants: [{name: pay, budget: {perDay: 1}}]",
		"{nodeHourUSD: 0.4, labels: [tier, example.com/tier]}", "{host: {purchaseUSD: 8000, monthlyUSD: 60}}",
		"{prices: [{perHour: 0}, {group: a, perHour: 1, validUntil: 2026-01-01}, {group: a, perHour: 2, validFrom: 2026-01-01, currency: USD, minimumBilling: 1m}]}",
	} {
		if _, err := costFleet(cost); err != nil {
			t.Errorf("%s: %v", cost, err)
		}
	}
}

func TestHostCost(t *testing.T) {
	h := HostCost{PurchaseUSD: 8765.82, Years: 1, MonthlyUSD: 0}
	if got := h.HourUSD(); math.Abs(got-1) > 1e-9 {
		t.Errorf("an hour of a machine of $8765.82 for a year is $%v", got)
	}
}

func TestParsePrices(t *testing.T) {
	got, err := ParsePrices("p.csv", []byte("# of March\ngroup,instanceType,capacity,perHour,currency,minimumBilling,validFrom\nagents,m7i.large,spot,0.04,USD,1m,2026-03-01\n,,,0.1,,,\n"))
	if err != nil || len(got) != 2 || got[0].InstanceType != "m7i.large" || *got[1].PerHour != 0.1 {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err = ParsePrices("p.yaml", []byte("prices:\n- {group: agents, perHour: 0.5}\n- {perHour: 1}\n")); err != nil || len(got) != 2 {
		t.Errorf("%+v, %v", got, err)
	}
	for _, tt := range []struct{ name, text, want string }{
		{"p.csv", "group,price\na,1\n", `line 1: column "price": is unknown`},
		{"p.csv", "group\na\n", `line 1: column "perHour": is missing`},
		{"p.csv", "perHour,perHour\n1,2\n", "is there twice"},
		{"p.csv", "perHour,currency\n1,USD\n", ""},
		{"p.csv", "group,perHour,currency\na,1,USD\nb,2,EUR\n", `line 3: prices[1].currency: "EUR" is unknown`},
		{"p.csv", "group,perHour\na,-1\n", "line 2: prices[0].perHour: -1 is not allowed"},
		{"p.csv", "group,perHour\na,\n", "line 2: prices[0].perHour: is missing"},
		{"p.csv", "group,perHour\na,cheap\n", `prices[0].perHour: "cheap" is none`},
		{"p.csv", "group,perHour\na,1\na,2\n", "line 3: prices[1]: is for the same nodes at the same time as prices[0]"},
		{"p.csv", "group,perHour\na\n", "line 2: document: wrong number of fields"},
		{"p.csv", "", "first line"},
		{"p.yaml", "prices:\n- {perHour: 1, colour: x}\n", "line 2: prices[0].colour"},
		{"p.yaml", "prices: []\n", "prices: is missing"},
		{"p.yaml", "- 1\n", "document"},
		{"p.yaml", "", "document"},
	} {
		if _, err := ParsePrices(tt.name, []byte(tt.text)); (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: %v, want %q", tt.text, err, tt.want)
		}
	}
}

func FuzzParsePrices(f *testing.F) {
	f.Add("p.csv", []byte("group,perHour\na,1\n"))
	f.Add("p.yaml", []byte("prices: [{perHour: 1}]"))
	f.Fuzz(func(t *testing.T, name string, src []byte) {
		got, err := ParsePrices(name, src)
		if err != nil {
			return
		}
		for _, p := range got {
			if p.PerHour == nil || *p.PerHour < 0 {
				t.Errorf("%+v", p)
			}
		}
	})
}

func TestParseOffHours(t *testing.T) {
	for in, want := range map[string]string{"": "0s 0s", "20:00-07:00": "20h0m0s 7h0m0s", "00:00-24:00": "0s 24h0m0s"} {
		if a, b, err := ParseOffHours(in); err != nil || a.String()+" "+b.String() != want {
			t.Errorf("%q: %s %s, %v", in, a, b, err)
		}
	}
	for _, in := range []string{"20:00", "20-7", "08:00-08:00", "25:00-07:00", "-"} {
		if _, _, err := ParseOffHours(in); err == nil {
			t.Errorf("%q is taken", in)
		}
	}
}
