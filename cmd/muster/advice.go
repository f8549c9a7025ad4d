package main

import (
	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/whatif"
)

// openAdviser makes what simulates the fleet under other settings.
func openAdviser(u *unit) *whatif.Service {
	parse := u.parse
	if parse == nil {
		parse = v1alpha1.ParseFleet
	}
	return whatif.New(whatif.Options{
		Store: u.store, View: u.control.View, Parse: parse, Fleet: u.now.Load, Rules: whatif.Rules{Spec: controlSpec, Tariff: tariffOf},
	})
}
