"""What `meshyard bench` measures with: a submitter and a collector in processes of their own, and CPU by role."""
