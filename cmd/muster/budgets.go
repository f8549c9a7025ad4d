package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/fleet"
	"muster.dev/muster/internal/ledger"
	"muster.dev/muster/internal/webhook"
)

func budgetsOf(f *v1alpha1.Fleet) ledger.Budgets {
	b := &f.Spec.Cost.Budget
	return ledger.Budgets{Limits: f.Spec.Budgets(), WarnAt: b.WarnAt, Webhook: b.Webhook}
}

// settingHeld are the tenants that are held, for the fleet's consumers: a JSON
// list of names.
const settingHeld = "budget.held"

// tenanted is a store whose queue knows what each tenant may have.
type tenanted interface {
	SetTenants(map[fleet.TenantID]fleet.Share)
}

// hold keeps the queue from starting tasks of tenants whose money is used up.
func (u *unit) hold(ctx context.Context, held []fleet.TenantID) error {
	if u.tenants == nil {
		return errors.New("this store knows no tenants")
	}
	f := u.now.Load()
	u.tenants.SetTenants(sharesBut(f, held))
	if !f.Spec.HasConsumers() {
		return nil
	}
	b, err := json.Marshal(held)
	if err != nil {
		return fmt.Errorf("encode the tenants that are held: %w", err)
	}
	return u.store.PutSetting(ctx, settingHeld, b)
}

// sharesBut are what each tenant may have, with those held that are named.
func sharesBut(f *v1alpha1.Fleet, held []fleet.TenantID) map[fleet.TenantID]fleet.Share {
	out := shares(f)
	for _, t := range held {
		s := out[t]
		s.Held = true
		out[t] = s
	}
	return out
}

// heldEvery is how often a consumer looks which tenants are held.
const heldEvery = 2 * time.Second

// followHeld holds in a consumer the tenants that the control plane holds, until
// ctx ends. What cannot be read goes on as it was.
func followHeld(ctx context.Context, store fleet.Store, f *v1alpha1.Fleet) {
	q, ok := store.(tenanted)
	if !ok {
		return
	}
	tick := time.NewTicker(heldEvery)
	defer tick.Stop()
	for last := ""; ; {
		b, err := store.Setting(ctx, settingHeld)
		var held []fleet.TenantID
		if err == nil && string(b) != last && json.Unmarshal(b, &held) == nil {
			q.SetTenants(sharesBut(f, held))
			last = string(b)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// notices are those of events, and of the ledger where there is one.
func (u *unit) notices() webhook.Notices {
	if u.ledger == nil {
		return u.feed
	}
	return webhook.Several{u.feed, u.ledger}
}

// endpoints are the addresses that are told of events now.
func (u *unit) endpoints() (out []webhook.Endpoint) {
	for _, e := range u.now.Load().Spec.Webhooks.Endpoints {
		kinds := e.Events
		if len(kinds) == 0 {
			kinds = v1alpha1.ScalingEvents
		}
		out = append(out, webhook.Endpoint{URL: e.URL, Kinds: kinds})
	}
	return out
}

// purse is what the control loop knows of money.
type purse struct{ u *unit }

// Spending implements fleet.Purse.
func (p purse) Spending(now time.Time) fleet.Spending { return p.u.ledger.Spending(now) }

// Held implements fleet.Purse.
func (p purse) Held(t fleet.TenantID) string { return p.u.ledger.Held(t) }
