// The two 16-bit floating types, to and from single precision. To: exactly. From: to nearest, ties
// to even.

#pragma once

#include <bit>
#include <cstdint>

namespace transparent_llm::internal {

constexpr float from_bf16(std::uint16_t half) {
  return std::bit_cast<float>(std::uint32_t{half} << 16);
}

constexpr std::uint16_t to_bf16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  // NaN: rounding could make an infinity of it. So does PyTorch's rounding of single elements; its
  // vectors give another NaN, such as 0xffff, depending on the processor.
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fc0;
  return static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

constexpr float from_f16(std::uint16_t half) {
  const std::uint32_t sign = (std::uint32_t{half} & 0x8000u) << 16;
  const std::uint32_t exponent = (half >> 10) & 0x1fu;
  const std::uint32_t fraction = half & 0x3ffu;
  if (exponent == 0x1f) return std::bit_cast<float>(sign | 0x7f800000u | (fraction << 13));
  if (exponent != 0)
    return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (fraction << 13));
  const float magnitude = static_cast<float>(fraction) * 0x1p-24f;  // zero and subnormals
  return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(magnitude));
}

constexpr std::uint16_t to_f16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = (bits >> 16) & 0x8000u;
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u)  // NaN, with the upper bits of its payload, as by processors
    return static_cast<std::uint16_t>(sign | 0x7e00u | ((magnitude >> 13) & 0x3ffu));
  if (magnitude >= 0x47800000u)
    return static_cast<std::uint16_t>(sign | 0x7c00u);  // 65536 and more: infinity
  if (magnitude >=
      0x38800000u) {  // normal; what rounds up past the largest number carries into infinity
    const std::uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
    return static_cast<std::uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
  }
  if (magnitude < 0x33000000u)
    return static_cast<std::uint16_t>(sign);             // below half of the smallest number
  const std::uint32_t shift = 126u - (magnitude >> 23);  // to units of 2^-24
  const std::uint32_t fraction = (magnitude & 0x7fffffu) | 0x800000u;
  const std::uint32_t rest = fraction & ((1u << shift) - 1u);
  const std::uint32_t middle = 1u << (shift - 1u);
  std::uint32_t rounded = fraction >> shift;
  if (rest > middle || (rest == middle && (rounded & 1u) != 0)) ++rounded;
  return static_cast<std::uint16_t>(sign | rounded);
}

}  // namespace transparent_llm::internal
