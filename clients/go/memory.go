package transparentllm

import (
	"bytes"
	"math"
	"os"
	"strconv"
	"strings"
	"sync"
)

// unknownMemory is taken for half of the memory where it cannot be told how much there is.
const unknownMemory = 4 << 30

// cgroupLimits are the files in which Linux says what a container may take, of its two versions.
var cgroupLimits = []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}

var memory = struct {
	sync.Once
	half int64
}{}

// halfOfMemory is half of what this machine has, or of what its container may take if that is less, in bytes.
func halfOfMemory() int64 {
	memory.Do(func() { memory.half = toldHalf() })
	return memory.half
}

func toldHalf() int64 {
	total := totalMemory()
	for _, path := range cgroupLimits {
		text, err := os.ReadFile(path)
		if limit, notSaid := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && notSaid == nil && limit < total {
			total = limit
		}
	}
	if total <= 0 || total == math.MaxInt64 {
		return unknownMemory
	}
	return total / 2
}

// totalMemory is that of the machine; the largest number there is where it cannot be told.
func totalMemory() int64 {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return math.MaxInt64
	}
	for _, line := range bytes.Split(text, []byte("\n")) {
		fields := strings.Fields(string(line))
		if len(fields) < 2 || fields[0] != "MemTotal:" {
			continue
		}
		if kibibytes, err := strconv.ParseInt(fields[1], 10, 48); err == nil {
			return kibibytes << 10
		}
	}
	return math.MaxInt64
}
