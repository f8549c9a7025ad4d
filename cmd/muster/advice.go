package main

import (
	"muster.dev/muster/api/v1alpha1"
	"muster.dev/muster/internal/advise"
	"muster.dev/muster/internal/whatif"
)

// openAdviser makes what simulates the fleet under other settings.
func openAdviser(u *unit) *advise.Service {
	parse := u.parse
	if parse == nil {
		parse = v1alpha1.ParseFleet
	}
	return &advise.Service{
		Service: whatif.New(whatif.Options{
			Store: u.store, View: u.control.View, Parse: parse, Fleet: u.now.Load, Rules: whatifRules,
		}),
		Forecast: u.control.Forecast, Fleet: u.now.Load,
	}
}

var whatifRules = whatif.Rules{Spec: controlSpec, Tariff: tariffOf}
