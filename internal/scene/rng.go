// SPDX-License-Identifier: Apache-2.0

package scene

import (
	"math"

	"github.com/sentinel-x/sentinel-x/internal/traffic"
)

// rng is splitmix64: a few instructions a number, and a stream of its own for every seed.
type rng struct{ state uint64 }

const gamma = 0x9e3779b97f4a7c15

// newRNG returns the generator of one use of a seed.
func newRNG(seed uint64, use string) rng {
	h := uint64(len(use))
	for i := range len(use) {
		h = traffic.HashMix(h*gamma + uint64(use[i]))
	}
	return rng{traffic.HashMix(seed+gamma) ^ h}
}

func (r *rng) next() uint64 {
	r.state += gamma
	return traffic.HashMix(r.state)
}

// float is in [0, 1).
func (r *rng) float() float64 { return float64(r.next()>>11) / (1 << 53) }

// intn is in [0, n).
func (r *rng) intn(n int) int { return int(r.next() >> 32 * uint64(n) >> 32) }

// between is in [lo, hi].
func (r *rng) between(lo, hi int) int { return lo + r.intn(hi-lo+1) }

func (r *rng) chance(p float64) bool { return r.float() < p }

// uniform is in [lo, hi).
func (r *rng) uniform(lo, hi float64) float64 { return lo + (hi-lo)*r.float() }

// logUniform is in [lo, hi), each factor as likely as another.
func (r *rng) logUniform(lo, hi float64) float64 { return lo * math.Pow(hi/lo, r.float()) }

// exp has mean 1.
func (r *rng) exp() float64 { return -math.Log(1 - r.float()) }

// pareto has shape a > 1 and mean 1.
func (r *rng) pareto(a float64) float64 {
	return (a - 1) / a * math.Pow(1-r.float(), -1/a)
}

// geometric is ≥ 1 and has mean m ≥ 1.
func (r *rng) geometric(m float64) int {
	if m <= 1 {
		return 1
	}
	return 1 + int(math.Log(1-r.float())/math.Log1p(-1/m))
}

// poisson has mean m.
func (r *rng) poisson(m float64) int {
	if m > 50 {
		return max(0, int(math.Round(m+math.Sqrt(m)*r.normal())))
	}
	n := 0
	for t := r.exp(); t < m; t += r.exp() {
		n++
	}
	return n
}

// normal has mean 0 and variance 1.
func (r *rng) normal() float64 {
	return math.Sqrt(-2*math.Log(1-r.float())) * math.Cos(2*math.Pi*r.float())
}

// jitter is lognormal around 1.
func (r *rng) jitter(sigma float64) float64 { return math.Exp(sigma * r.normal()) }

// pick returns one of the choices.
func pick[T any](r *rng, of ...T) T { return of[r.intn(len(of))] }
