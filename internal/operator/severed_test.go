package operator

import (
	"errors"
	"net/http"

	"k8s.io/client-go/transport"
)

// severed fails every request once cut is closed.
func severed(cut <-chan struct{}) transport.WrapperFunc {
	return func(next http.RoundTripper) http.RoundTripper {
		return tripper(func(r *http.Request) (*http.Response, error) {
			select {
			case <-cut:
				return nil, errors.New("cut off")
			default:
				return next.RoundTrip(r)
			}
		})
	}
}

type tripper func(*http.Request) (*http.Response, error)

func (t tripper) RoundTrip(r *http.Request) (*http.Response, error) { return t(r) }
