package forecast

import (
	"math"
	"slices"
)

// forget is what a week leaves of the weeks before it: a half-life of about two
// weeks, so that a change of habit is followed and one holiday is not.
const forget = 0.7

// digest is a distribution of counts with weights that fade: mean and variance
// exactly, quantiles to within half a doubling.
type digest struct {
	weight float64
	sum    float64
	square float64
	masses []mass // sorted by bucket
}

// mass is the weight of a bucket: bucket 0 holds 0, bucket i+1 what
// bucketTop(i) does.
type mass struct {
	bucket uint8
	weight float32
}

// maxBucket is the last bucket; its top is beyond maxArrivals.
const maxBucket = 62

func massBucket(v float64) uint8 {
	if !(v > 0) {
		return 0
	}
	for i := range maxBucket {
		if v <= float64(bucketTop(i)) {
			return uint8(i + 1)
		}
	}
	return maxBucket
}

func massTop(bucket uint8) float64 {
	if bucket == 0 {
		return 0
	}
	return float64(bucketTop(int(bucket) - 1))
}

// add takes a value of at least 0.
func (d *digest) add(v, weight float64) {
	d.weight, d.sum, d.square = d.weight+weight, d.sum+weight*v, d.square+weight*v*v
	b := massBucket(v)
	i, found := slices.BinarySearchFunc(d.masses, b, func(m mass, b uint8) int { return int(m.bucket) - int(b) })
	if !found {
		d.masses = slices.Insert(d.masses, i, mass{bucket: b})
	}
	d.masses[i].weight += float32(weight)
}

// fade multiplies every weight; what is next to nothing is dropped.
func (d *digest) fade(by float64) {
	d.weight, d.sum, d.square = d.weight*by, d.sum*by, d.square*by
	d.masses = slices.DeleteFunc(d.masses, func(m mass) bool { return float64(m.weight)*by < 1e-4 })
	for i := range d.masses {
		d.masses[i].weight *= float32(by)
	}
	if len(d.masses) == 0 {
		*d = digest{}
	}
}

// merge adds another distribution.
func (d *digest) merge(o *digest) {
	d.weight, d.sum, d.square = d.weight+o.weight, d.sum+o.sum, d.square+o.square
	for _, m := range o.masses {
		i, found := slices.BinarySearchFunc(d.masses, m.bucket, func(m mass, b uint8) int { return int(m.bucket) - int(b) })
		if !found {
			d.masses = slices.Insert(d.masses, i, mass{bucket: m.bucket})
		}
		d.masses[i].weight += m.weight
	}
}

func (d *digest) mean() float64 {
	if d.weight <= 0 {
		return 0
	}
	return d.sum / d.weight
}

// dispersion is variance over mean (1 is Poisson), at least 1; 1 of nothing.
func (d *digest) dispersion() float64 {
	m := d.mean()
	if m <= 0 {
		return 1
	}
	return min(max((d.square/d.weight-m*m)/m, 1), maxIDC)
}

// quantile is the top of the bucket in which a share q of the weight is
// reached: at most half a doubling above the value asked for.
func (d *digest) quantile(q float64) float64 {
	var total, sum float64
	for _, m := range d.masses {
		total += float64(m.weight)
	}
	for _, m := range d.masses {
		if sum += float64(m.weight); sum >= q*total-1e-9*total {
			return massTop(m.bucket)
		}
	}
	return 0
}

// sound tells whether a decoded digest can be worked with.
func (d *digest) sound() bool {
	for _, v := range []float64{d.weight, d.sum, d.square} {
		if !(v >= 0) || v > math.MaxFloat64/1e100 {
			return false
		}
	}
	for i, m := range d.masses {
		if !(m.weight >= 0) || m.weight > 1e9 || m.bucket > maxBucket || i > 0 && d.masses[i-1].bucket >= m.bucket {
			return false
		}
	}
	return true
}
