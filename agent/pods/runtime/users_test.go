package runtime

import "testing"

func TestResolveUser(t *testing.T) {
	const passwd = "root:x:0:0:root:/root:/bin/sh\n1000:x:0:0:trap:/root:/bin/sh\napp:x:1000:1001:app:/home/app:/bin/sh\n"
	const group = "root:x:0:\napp:x:1001:\nextra:x:2000:app\n"
	for _, c := range []struct {
		user     string
		uid, gid uint32
	}{
		{"", 0, 0}, {"app", 1000, 1001}, {"app:extra", 1000, 2000}, {"5", 5, 0}, {"5:7", 5, 7},
		{"1000", 1000, 1001}, // not the account that is called so
	} {
		u, err := resolveUser(c.user, passwd, group)
		if err != nil || u.UID != c.uid || u.GID != c.gid {
			t.Errorf("user %q is %d:%d, %v; want %d:%d", c.user, u.UID, u.GID, err, c.uid, c.gid)
		}
	}
	if u, err := resolveUser("nobody-here", passwd, group); err == nil {
		t.Errorf("an unknown name became %d", u.UID)
	}
}
