"""Resources open to anonymous callers; a credential widens what they show."""
