"""Resources that anyone may ask; a credential widens what they show."""
