package services

// Sweep removes flows that are over now rather than when it is time.
func (p *Proxy) Sweep() error { return p.sweep.sweep() }
