package transparentllm

import (
	"fmt"
	"testing"
)

func TestKeysAreSpreadEvenlyAndStayWhereTheyAre(t *testing.T) {
	all := servers{{target: "10.0.0.1:50051"}, {target: "10.0.0.2:50051"}, {target: "10.0.0.3:50051"}}
	counts := map[*server]int{}
	for i := 0; i < 3000; i++ {
		key := fmt.Sprintf("%032x", i)
		chosen := all.of(key)
		counts[chosen]++
		if chosen != all[2] && all[:2].of(key) != chosen {
			t.Fatalf("key %s moved though its server is there", key)
		}
	}
	for _, one := range all {
		if counts[one] < 850 || counts[one] > 1150 {
			t.Errorf("%s has %d of 3000 keys", one.target, counts[one])
		}
	}
}
