package half

import (
	"math"
	"testing"
)

func TestEveryBF16IsTheUpperHalfOfASingle(t *testing.T) {
	for bits := 0; bits < 1<<16; bits++ {
		value := FromBF16(uint16(bits))
		if math.Float32bits(value) != uint32(bits)<<16 {
			t.Fatalf("%04x became %08x", bits, math.Float32bits(value))
		}
		if back := ToBF16(value); value == value && back != uint16(bits) {
			t.Fatalf("%04x came back as %04x", bits, back)
		}
	}
}

func TestEveryF16HasTheValueOfItsParts(t *testing.T) {
	for bits := 0; bits < 1<<16; bits++ {
		value := FromF16(uint16(bits))
		exponent, fraction := bits>>10&0x1F, float64(bits&0x3FF)
		wanted := math.Ldexp(1024+fraction, exponent-25)
		switch {
		case exponent == 0:
			wanted = math.Ldexp(fraction, -24)
		case exponent == 31 && fraction == 0:
			wanted = math.Inf(1)
		case exponent == 31:
			wanted = math.NaN()
		}
		if math.IsNaN(wanted) {
			if value == value {
				t.Fatalf("%04x is no NaN but %v", bits, value)
			}
			continue
		}
		if math.Abs(float64(value)) != wanted || math.Signbit(float64(value)) != (bits>>15 == 1) {
			t.Fatalf("%04x became %v, not %v", bits, value, wanted)
		}
		if back := ToF16(value); back != uint16(bits) {
			t.Fatalf("%04x came back as %04x", bits, back)
		}
	}
}

func TestRoundingGoesToTheNearestTiesToEven(t *testing.T) {
	for _, c := range []struct {
		single    uint32
		bf16, f16 uint16
	}{
		{0x3F800000, 0x3F80, 0x3C00}, // 1
		{0x3F808000, 0x3F80, 0x3C04}, // a tie of BF16, down to even
		{0x3F808001, 0x3F81, 0x3C04}, // just above it
		{0x3F818000, 0x3F82, 0x3C0C}, // a tie, up to even
		{0x3F801000, 0x3F80, 0x3C00}, // a tie of F16, down to even
		{0x3F801001, 0x3F80, 0x3C01}, // just above it
		{0x3F803000, 0x3F80, 0x3C02}, // a tie of F16, up to even
		{0x7F7FFFFF, 0x7F80, 0x7C00}, // the largest single becomes an infinity
		{0x477FE000, 0x4780, 0x7BFF}, // 65504, the largest half
		{0x477FEFFF, 0x4780, 0x7BFF}, // just below 65520
		{0x477FF000, 0x4780, 0x7C00}, // 65520, a tie to infinity
		{0x33800000, 0x3380, 0x0001}, // 2^-24, the smallest half
		{0x33000000, 0x3300, 0x0000}, // 2^-25, a tie to 0
		{0x33000001, 0x3300, 0x0001}, // just above it
		{0x33C00000, 0x33C0, 0x0002}, // 1.5 * 2^-24, a tie to even
		{0x387FE000, 0x3880, 0x0400}, // between the largest subnormal and 2^-14: a tie to even
		{0x387FC000, 0x3880, 0x03FF}, // the largest subnormal
		{0x80000000, 0x8000, 0x8000}, // -0
		{0xB3800000, 0xB380, 0x8001},
		{0xFF800000, 0xFF80, 0xFC00},
		{0x7F800001, 0x7FC0, 0x7E00}, // NaN, whose payload must not round to an infinity
		{0x7FC00000, 0x7FC0, 0x7E00}, // what most NaN are, for example inf * 0 on ARM
		{0xFFC00000, 0x7FC0, 0xFE00}, // inf * 0 on x86
		{0xFF800001, 0x7FC0, 0xFE00}, // one with a sign and a payload
		{0x7FC12345, 0x7FC0, 0x7E09},
		{0xFFA00000, 0x7FC0, 0xFF00},
		{0x7FFFFFFF, 0x7FC0, 0x7FFF}, // which could carry into the sign
		{0xFFFFFFFF, 0x7FC0, 0xFFFF},
		{0x00000001, 0x0000, 0x0000}, // the smallest single
	} {
		value := math.Float32frombits(c.single)
		if got := ToBF16(value); got != c.bf16 {
			t.Errorf("%08x became BF16 %04x, not %04x", c.single, got, c.bf16)
		}
		if got := ToF16(value); got != c.f16 {
			t.Errorf("%08x became F16 %04x, not %04x", c.single, got, c.f16)
		}
	}
}
