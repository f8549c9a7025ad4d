package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/cost"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/ledger"
)

// maxPriceFile bounds a price file, in bytes.
const maxPriceFile = 1 << 20

// tariffOf is a fleet's price list, with that of its file.
func tariffOf(f *v1alpha1.Fleet) (cost.Tariff, error) {
	c := &f.Spec.Cost
	prices := c.Prices
	if c.PriceFile != "" {
		more, err := readPrices(c.PriceFile)
		if err != nil {
			return nil, err
		}
		prices = append(prices[:len(prices):len(prices)], more...)
	}
	var out cost.Tariff
	for i := range prices {
		r, err := rateOf(&prices[i])
		if err != nil {
			return nil, fmt.Errorf("spec.cost: price %d: %w", i, err)
		}
		out = append(out, r)
	}
	if h := c.NodeHour(); h > 0 { // after those that say as little about the node
		out = append(out, cost.Rate{PerHour: cost.Micro(microUSD(h))})
	}
	return out, nil
}

// readPrices reads a price file.
func readPrices(name string) ([]v1alpha1.Price, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, &fleet.FieldError{Field: "spec.cost.priceFile", Wrong: err.Error(), Right: "a file that can be read"}
	}
	defer file.Close()
	b, err := io.ReadAll(io.LimitReader(file, maxPriceFile+1))
	if err == nil && len(b) > maxPriceFile {
		err = errors.New("has more than 1 MiB")
	}
	if err != nil {
		return nil, &fleet.FieldError{Field: "spec.cost.priceFile", Wrong: err.Error(), Right: "a file that can be read"}
	}
	prices, err := v1alpha1.ParsePrices(name, b)
	if err != nil {
		return nil, fmt.Errorf("spec.cost.priceFile: %s: %w", name, err)
	}
	return prices, nil
}

// rateOf is a price that validation has passed.
func rateOf(p *v1alpha1.Price) (cost.Rate, error) {
	r := cost.Rate{Kind: fleet.NodeKind{Group: p.Group, InstanceType: p.InstanceType, Capacity: p.Capacity}, PerHour: cost.Micro(microUSD(*p.PerHour))}
	var err error
	if r.From, r.Until, err = p.Period(); err != nil {
		return r, err
	}
	r.MinBill, err = duration("minimumBilling", p.MinimumBilling)
	return r, err
}

// openLedger makes what charges the fleet; nil where others run the workers.
func openLedger(ctx context.Context, u *unit) (*ledger.Service, error) {
	if u.fleet.Spec.Follows() {
		return nil, nil
	}
	t, err := tariffOf(u.fleet)
	if err != nil {
		return nil, err
	}
	l := ledger.New(ledger.Options{
		Store: u.store, Nodes: u.listNodes, Fleet: u.fleet.Metadata.Name, Tariff: t, Labels: u.fleet.Spec.Cost.Labels, Logger: u.log,
		Budget: budgetsOf(u.fleet), Events: u.store.AppendEvents, Hold: u.hold, Charged: u.meter.Charged,
	})
	return l, l.Prime(ctx)
}

// listNodes reads the nodes; a reading that hangs is given up, and the nodes go
// on as they were.
func (u *unit) listNodes(ctx context.Context) ([]fleet.Node, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return u.nodes.List(ctx)
}
