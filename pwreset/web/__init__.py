"""What every page shares: security checks and headers, error pages, forms, generic views, the mailbox."""
