// Package half converts between float32 and the two 16-bit floating types that tensors travel in.
package half

import "math"

const (
	// What every NaN becomes as BF16. So does PyTorch's rounding of single elements; its vectors give another NaN, such as
	// 0xFFFF, depending on the processor.
	quietBF16 = 0x7FC0
	// What a NaN becomes as F16, with its sign and the upper bits of its payload, as by processors and in PyTorch.
	quietF16 = 0x7E00
)

// FromBF16 gives the value of the upper 16 bits of a single. It is exact.
func FromBF16(bits uint16) float32 {
	return math.Float32frombits(uint32(bits) << 16)
}

// ToBF16 rounds to the nearest BF16, ties to even.
func ToBF16(value float32) uint16 {
	bits := math.Float32bits(value)
	if bits&0x7FFFFFFF > 0x7F800000 {
		return quietBF16
	}
	return uint16((bits + 0x7FFF + bits>>16&1) >> 16)
}

// FromF16 gives the value of an IEEE 754 half. It is exact; subnormals, infinities and NaN included.
func FromF16(bits uint16) float32 {
	sign, exponent, fraction := uint32(bits>>15)<<31, uint32(bits>>10&0x1F), uint32(bits&0x3FF)
	switch exponent {
	case 0:
		magnitude := float32(fraction) * 0x1p-24
		return math.Float32frombits(math.Float32bits(magnitude) | sign)
	case 0x1F:
		return math.Float32frombits(sign | 0x7F800000 | fraction<<13)
	}
	return math.Float32frombits(sign | (exponent+127-15)<<23 | fraction<<13)
}

// ToF16 rounds to the nearest half, ties to even; what is too large for it becomes an infinity.
func ToF16(value float32) uint16 {
	bits := math.Float32bits(value)
	sign, magnitude := uint16(bits>>16&0x8000), bits&0x7FFFFFFF
	switch {
	case magnitude > 0x7F800000:
		return sign | quietF16 | uint16(magnitude>>13&0x3FF)
	case magnitude >= 0x47800000: // 65536 and above
		return sign | 0x7C00
	case magnitude < 0x38800000: // below 2^-14: a subnormal
		return sign | subnormal(magnitude)
	}
	// Rebias the exponent, then round; a carry out of the fraction rightly goes into the exponent.
	rebiased := magnitude - (127-15)<<23
	return sign | uint16((rebiased+0xFFF+rebiased>>13&1)>>13)
}

// subnormal rounds a magnitude below 2^-14 to multiples of 2^-24.
func subnormal(magnitude uint32) uint16 {
	// In the sum with 0.5 the last place of the fraction is worth 2^-24, so that the addition rounds, ties to even.
	sum := math.Float32frombits(magnitude) + 0.5
	return uint16(math.Float32bits(sum) - math.Float32bits(0.5))
}
