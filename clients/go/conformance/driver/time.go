package main

import (
	"context"
	"fmt"
	"time"
)

// timed makes a read so many times, and says how long each took until the client had the value.
func timed(asked *request) (any, error) {
	made, err := asked.called()
	if err != nil {
		return nil, err
	}
	made.ctx = context.Background()
	read, ok := tensors[asked.Method]
	if !ok {
		return nil, fmt.Errorf("no such read: %q", asked.Method)
	}
	taken := []float64{}
	for i := 0; i < asked.Times; i++ {
		started := time.Now()
		if _, err := read(made); err != nil {
			return nil, err
		}
		taken = append(taken, time.Since(started).Seconds())
	}
	return fields{"seconds": taken}, nil
}
